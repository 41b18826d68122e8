//! Images, of old and new answers alike.
use std::{collections::BTreeMap, time::UNIX_EPOCH};

use agentkernel_core::Result;
use serde::Deserialize;
use serde_json::Value;

use super::{Descriptor, array};

/// An image.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Image {
    /// As it is stored: often with its registry.
    pub name: String,
    /// `sha256:…`, of all its platforms together.
    pub digest: String,
    /// In seconds since 1970; 0 if it is not told.
    pub created: i64,
    /// Only what `image inspect` and, since 1.0, `image list` tell.
    pub variants: Vec<Variant>,
}

/// An image for one platform.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Variant {
    pub platform: Platform,
    pub size: u64,
    pub config: Built,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub os: String,
    pub architecture: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Built {
    created: Option<String>,
    pub config: Option<Defaults>,
}

/// What commands get from an image, and what it is labeled with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Defaults {
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    configuration: Option<Configuration>,
    reference: Option<String>,
    name: Option<String>,
    descriptor: Option<Descriptor>,
    index: Option<Descriptor>,
    variants: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Configuration {
    creation_date: Option<String>,
    name: Option<String>,
    descriptor: Option<Descriptor>,
}

impl Image {
    /// Returns the variant for this architecture, as OCI calls it.
    pub(crate) fn variant(&self, arch: &str) -> Option<&Variant> {
        self.variants.iter().find(|it| it.platform.os == "linux" && it.platform.architecture == arch)
    }

    /// Returns its name as people write it.
    pub(crate) fn short_name(&self) -> &str {
        let short = self.name.strip_prefix("docker.io/").unwrap_or(&self.name);
        short.strip_prefix("library/").unwrap_or(short)
    }
}

fn image(value: Value) -> Option<Image> {
    let raw: Raw = serde_json::from_value(value).ok()?;
    let configuration = raw.configuration.unwrap_or_default();
    let name = configuration.name.or(raw.reference).or(raw.name)?;
    let descriptor = configuration.descriptor.or(raw.descriptor).or(raw.index)?;
    // One that cannot be read, as an attestation, is no variant.
    let variants =
        raw.variants.into_iter().filter_map(|it| Variant::deserialize(it).ok()).collect::<Vec<_>>();
    let built = variants.iter().find_map(|it| it.config.created.as_deref().and_then(seconds));
    let created = built.or(configuration.creation_date.as_deref().and_then(seconds)).unwrap_or_default();
    Some(Image { name, digest: descriptor.digest?, created, variants })
}

fn seconds(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Reads `image list` or `image inspect`. One that cannot be read is left out: it must not hide the others.
pub(crate) fn images(operation: &'static str, bytes: &[u8]) -> Result<Vec<Image>> {
    Ok(array(operation, bytes)?.into_iter().filter_map(image).collect())
}

/// Reads how much of a pull is done, from a line like `[1/2] Fetching image 45%`.
pub(crate) fn percent(line: &str) -> Option<u8> {
    let before = line.get(..line.find('%')?)?;
    let digits = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    before.get(digits..)?.parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_of_each_version_reads_alike() {
        for (version, text) in [
            ("1.2", include_str!("golden/image-1.2.json")),
            ("0.12 inspect", include_str!("golden/image-0.12.json")),
            ("0.12 list", include_str!("golden/image-list-0.12.json")),
        ] {
            let image = images("x", text.as_bytes()).unwrap().remove(0);
            assert_eq!(image.name, "docker.io/library/alpine:3.20", "{version}");
            assert_eq!(image.short_name(), "alpine:3.20", "{version}");
            assert!(image.digest.starts_with("sha256:4bcff6"), "{version}");
            let variant = image.variant("arm64");
            assert_eq!(variant.is_some(), version != "0.12 list");
            if let Some(variant) = variant {
                let defaults = variant.config.config.as_ref().unwrap();
                assert_eq!(variant.size, 4_091_000, "{version}");
                assert_eq!(defaults.working_dir.as_deref(), Some("/"), "{version}");
                assert_eq!(defaults.labels.as_ref().unwrap()["a"], "b", "{version}");
                assert_eq!(image.created, 1_741_564_800, "{version}");
            }
        }
    }

    #[test]
    fn an_attestation_is_no_platform_of_ours() {
        let image = images("x", include_bytes!("golden/image-1.2.json")).unwrap().remove(0);
        assert_eq!(image.variants.len(), 2);
        assert!(image.variant("amd64").is_none());
    }

    #[test]
    fn progress_is_read_from_a_line() {
        for (line, percent) in [
            ("[1/2] Fetching image 45%", Some(45)),
            ("[1/2] Fetching image 100% (3 of 7 blobs)", Some(100)),
            ("7%", Some(7)),
            ("Fetching image", None),
            ("[1/2] 999%", None),
            ("%", None),
        ] {
            assert_eq!(super::percent(line), percent, "{line}");
        }
    }

    proptest! {
        #[test]
        fn damaged_answers_and_lines_never_panic(at in 0..400usize, byte in any::<u8>(), line in ".{0,40}") {
            let mut bytes = include_bytes!("golden/image-1.2.json").to_vec();
            if let Some(it) = bytes.get_mut(at) {
                *it = byte;
            }
            let _images = images("x", &bytes);
            prop_assert!(percent(&line).is_none_or(|percent| percent <= 100));
        }
    }
}
