//! Random names.
use agentkernel_core::{Error, Result};

/// Returns 16 lower-case hexadecimal digits.
pub(crate) fn hex16() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|source| Error::unexpected("make a random name", "there is no randomness", source))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
