//! Checked quantities.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A share of processors in thousandths: 1,500 is one and a half. Written as a decimal number, `1.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Cpus(u32);

impl Cpus {
    /// The least that engines can enforce: ten thousandths (1 ms of a 100 ms period, the least of cpu.max in cgroups(7)).
    pub const MIN_MILLI: u32 = 10;
    /// A bound against typing errors: 4,096 processors.
    pub const MAX_MILLI: u32 = 4_096_000;

    /// Makes a share from thousandths.
    ///
    /// # Errors
    /// `InvalidConfig` if outside [`MIN_MILLI`](Self::MIN_MILLI) to [`MAX_MILLI`](Self::MAX_MILLI).
    pub fn from_milli(milli: u32) -> Result<Self> {
        if (Self::MIN_MILLI..=Self::MAX_MILLI).contains(&milli) {
            return Ok(Self(milli));
        }
        Err(Error::invalid("number of processors", "the number is not between 0.01 and 4096")
            .with_hint("for example `--cpus 1.5`"))
    }

    /// Returns thousandths.
    pub const fn milli(self) -> u32 {
        self.0
    }
}

impl TryFrom<f64> for Cpus {
    type Error = Error;

    fn try_from(number: f64) -> Result<Self> {
        let milli = (number * 1000.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; NaN becomes 0")]
        Self::from_milli(milli.clamp(0.0, f64::from(u32::MAX)) as u32)
    }
}

impl From<Cpus> for f64 {
    fn from(cpus: Cpus) -> Self {
        f64::from(cpus.0) / 1000.0
    }
}

impl FromStr for Cpus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse::<f64>().map_err(|_| ()).and_then(|number| Self::try_from(number).map_err(|_| ())).map_err(
            |()| {
                Error::invalid("number of processors", "the number is not between 0.01 and 4096")
                    .with_context("cpus", text.chars().take(32).collect::<String>())
                    .with_hint("for example `--cpus 1.5`")
            },
        )
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&f64::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "0", "-1", "0.001", "NaN", "inf", "1e99", "one", "4097"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_share_reads_back_what_it_shows(milli in Cpus::MIN_MILLI..=Cpus::MAX_MILLI) {
            let cpus = Cpus::from_milli(milli).unwrap();
            prop_assert_eq!(cpus.to_string().parse::<Cpus>().unwrap(), cpus);
        }

        #[test]
        fn parse_never_panics(text in ".{0,20}") {
            let _cpus = text.parse::<Cpus>();
        }
    }
}
