//! `init`: a config file with every key explained, or the schema that describes it.
use std::{
    fs::OpenOptions,
    io::{self, Write},
};

use agentkernel_core::{Error, ErrorKind, Result};

use super::Outcome;
use crate::{args::InitArgs, config::file::NAME, output::View, report};

/// The file: every key is a comment, so that it changes nothing as it is.
const TEMPLATE: &str = include_str!("init/agentkernel.toml");
/// The schema, which editors and other programs read.
const SCHEMA: &str = include_str!("init/agentkernel.schema.json");

pub(crate) fn init(args: &InitArgs) -> Result<Outcome> {
    if args.schema {
        let printed = io::stdout().write_all(SCHEMA.as_bytes());
        printed
            .map_err(|source| Error::unexpected("print the schema", "writing to stdout failed", source))?;
        return Ok(Outcome::Code(0));
    }
    let written = OpenOptions::new().write(true).create_new(true).open(NAME);
    written.and_then(|mut file| file.write_all(TEMPLATE.as_bytes())).map_err(|source| {
        let is_there = source.kind() == io::ErrorKind::AlreadyExists;
        let (kind, message) = if is_there {
            (ErrorKind::AlreadyExists, "there is one already, and it is not overwritten")
        } else {
            (ErrorKind::PermissionDenied, "the file cannot be written here")
        };
        let error = Error::new(kind, "write config", message).with_context("file", NAME);
        if is_there {
            error.with_hint("edit it, then `agentkernel trust`")
        } else {
            error.with_source(source)
        }
    })?;
    report::note("agentkernel: edit it, then `agentkernel trust`; until then only what restricts counts");
    Ok(Outcome::Show(View::Names(vec![NAME.to_owned()]), false))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use agentkernel_core::SandboxConfig;
    use serde_json::Value;

    use super::*;
    use crate::config::file;

    /// The template with every example in force.
    fn uncommented() -> String {
        let lines = TEMPLATE.lines().map(|line| match line.strip_prefix("#") {
            Some(rest) if !rest.starts_with([' ', ':']) => rest,
            _ => line,
        });
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// The names that serde knows, which it tells of a name that it does not know.
    fn fields() -> BTreeSet<String> {
        let error = toml::from_str::<SandboxConfig>("? = 1".replace('?', "nosuch").as_str()).unwrap_err();
        let names = error.message().split('`').skip(1).step_by(2).filter(|name| *name != "nosuch");
        names.map(str::to_owned).collect()
    }

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    #[test]
    fn the_file_as_it_is_changes_nothing() {
        let config = file::parse(Path::new("/p/agentkernel.toml"), TEMPLATE.as_bytes()).unwrap();
        assert_eq!(config, SandboxConfig::default());
    }

    #[test]
    fn every_field_is_in_the_schema_and_no_other() {
        // How long a sandbox stays is the verb's.
        let fields = fields().into_iter().filter(|field| field != "lifetime").collect::<BTreeSet<_>>();
        let described = schema()["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert!(fields.len() > 20);
        assert_eq!(described, fields);
    }

    #[test]
    fn every_key_of_the_schema_is_explained_in_the_file_and_every_example_is_taken() {
        let config = file::parse(Path::new("/p/agentkernel.toml"), uncommented().as_bytes());
        let error = config.err().map(|error| error.to_string());
        assert_eq!(error, None);
        let table = uncommented().parse::<toml::Table>().unwrap();
        let keys = table.keys().cloned().collect::<BTreeSet<_>>();
        let described = schema()["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys, described);
    }

    /// Whether a value is of a type, has no unknown keys and lacks none; the parts of JSON Schema that ours uses.
    fn fits(value: &Value, schema: &Value) -> bool {
        if let Some(choices) = schema["oneOf"].as_array() {
            return choices.iter().any(|choice| fits(value, choice));
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.contains(value);
        }
        match schema["type"].as_str() {
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_u64(),
            Some("number") => value.is_number(),
            Some("array") => {
                value.as_array().is_some_and(|all| all.iter().all(|one| fits(one, &schema["items"])))
            }
            Some("object") => value.as_object().is_some_and(|fields| {
                let required = schema["required"].as_array().into_iter().flatten();
                required.flat_map(Value::as_str).all(|name| fields.contains_key(name))
                    && fields.iter().all(|(name, value)| match schema["properties"].get(name) {
                        Some(described) => fits(value, described),
                        None => {
                            schema["additionalProperties"].is_object()
                                && fits(value, &schema["additionalProperties"])
                        }
                    })
            }),
            _ => false,
        }
    }

    #[test]
    fn the_files_examples_fit_the_schema() {
        let table = uncommented().parse::<toml::Table>().unwrap();
        let (schema, value) = (schema(), serde_json::to_value(table).unwrap());
        for (name, value) in value.as_object().unwrap() {
            assert!(fits(value, &schema["properties"][name]), "{name}: {value}");
        }
        assert!(fits(&value, &schema));
    }

    #[test]
    fn words_of_the_schema_are_those_that_are_read() {
        for field in ["profile", "isolation", "pull"] {
            for word in schema()["properties"][field]["enum"].as_array().unwrap() {
                assert!(toml::from_str::<SandboxConfig>(&format!("{field} = {word}")).is_ok(), "{word}");
            }
        }
        let weaker = &schema()["properties"]["allow_weaker"]["items"]["enum"];
        let all =
            agentkernel_core::Capability::ALL.iter().map(|one| Value::from(one.as_str())).collect::<Vec<_>>();
        assert_eq!(weaker.as_array(), Some(&all));
    }
}
