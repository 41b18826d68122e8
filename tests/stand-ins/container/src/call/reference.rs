//! Image references, and how they are made whole (reference 1.7).

/// `alpine` is `docker.io/library/alpine:latest`.
pub(crate) fn normalise(reference: &str) -> String {
    let (domain, rest) = match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => ("docker.io", reference.to_owned()),
        None => ("docker.io", format!("library/{reference}")),
    };
    let last = rest.rsplit('/').next().unwrap_or_default();
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{domain}/{rest}{tag}")
}

/// The short name that `image list -q` shows.
pub(crate) fn short(reference: &str) -> &str {
    reference
        .strip_prefix("docker.io/")
        .map_or(reference, |rest| rest.strip_prefix("library/").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::{normalise, short};

    #[test]
    fn names_without_a_domain_are_of_docker_io() {
        assert_eq!(normalise("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(normalise("a/b:1"), "docker.io/a/b:1");
        assert_eq!(normalise("localhost:5000/b"), "localhost:5000/b:latest");
        assert_eq!(short("docker.io/library/alpine:latest"), "alpine:latest");
        assert_eq!(short("docker.io/a/b:1"), "a/b:1");
    }
}
