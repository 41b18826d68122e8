//! Seeded bugs: a fake with one of them must not pass the kit.
use agentkernel_core::Capability;

/// A bug that a fake can be given, to test the kit itself.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Every command that ends by itself ends with 0.
    LostExitStatus,
    /// stderr comes as stdout.
    MergedStreams,
    /// End-of-file of stdin never arrives.
    SwallowedEndOfInput,
    /// Output beyond 1 MiB is lost.
    TruncatedOutput,
    /// A name finds a sandbox whose name only begins with it.
    PrefixNameMatch,
    /// A dropped owner leaves its sandbox behind.
    LeakedOnDrop,
    /// A read-only root can be written.
    IgnoredReadOnly,
    /// A command that ends with 127 is taken for a missing program.
    ForgedCommandNotFound,
    /// A file is written in place, piece by piece.
    NonAtomicWrite,
    /// Writing follows a link.
    FollowsLinkOnWrite,
    /// Arguments go through text.
    LossyArguments,
    /// Variables of one command reach the next.
    LeakedVariables,
    /// Of two variables with one name the first counts.
    FirstVariableWins,
    /// A timeout loses the output.
    TimeoutLosesOutput,
    /// Only the first process of a command is killed.
    TreeSurvivesKill,
    /// Removing an absent sandbox fails.
    RemoveOfAbsentFails,
    /// An archive's names lead out of the directory.
    UnpackLeavesDirectory,
    /// The stream of a command waits until everybody has closed it.
    WaitsForBackground,
    /// Claims this and does not do it.
    FalseClaim(Capability),
    /// Does not claim this and does not refuse it either.
    UnclaimedIsNotRefused(Capability),
    /// A handle takes a namesake for what it made.
    TouchesNamesake,
}

impl Bug {
    /// Every bug but those of claims, which come with each capability.
    pub const ALL: &'static [Self] = &[
        Self::LostExitStatus,
        Self::MergedStreams,
        Self::SwallowedEndOfInput,
        Self::TruncatedOutput,
        Self::PrefixNameMatch,
        Self::LeakedOnDrop,
        Self::IgnoredReadOnly,
        Self::ForgedCommandNotFound,
        Self::NonAtomicWrite,
        Self::FollowsLinkOnWrite,
        Self::LossyArguments,
        Self::LeakedVariables,
        Self::FirstVariableWins,
        Self::TimeoutLosesOutput,
        Self::TreeSurvivesKill,
        Self::RemoveOfAbsentFails,
        Self::UnpackLeavesDirectory,
        Self::WaitsForBackground,
        Self::TouchesNamesake,
    ];
}
