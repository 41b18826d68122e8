//! The table of what each backend can do, written from the verdicts of the kit into `docs/backends.md`.
//!
//! One column is one backend on one machine. A column whose backend was not run keeps what it says.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;
use serde_json::Value;

use crate::{
    conformance, machine,
    process::{cargo, read, say},
};

const FILE: &str = "docs/backends.md";
const FORMAT: u64 = 1;
/// The command has these backends only so: Apple's elsewhere than on macOS, and the embedded one.
pub(crate) const WITH_ALL: [&str; 2] = ["--features", "apple-any-host,linux"];
const SEEN_WITH: &str = "seen with";
const ISOLATION: &str = "isolation";
const HEAD: &str = "# Backends

What each backend can do, as the conformance kit saw it.
`cargo xtask backends` writes the table from the kit's verdicts; do not edit it.

- **yes**: claimed, and every trial of it passed.
- **elsewhere**: not on the machine of this column, where it was seen to be refused; the backend can on others.
- **no**: not claimed; what can be asked for was seen to be refused.
- **claimed**: claimed, and no trial could be run.

";

/// From which verdicts, and whether to write.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Writes nothing and fails if the table is stale.
    #[arg(long)]
    check: bool,
    /// Takes the verdicts that are in this directory, instead of running the kit.
    #[arg(long, value_name = "DIR")]
    verdicts: Option<PathBuf>,
}

pub(crate) fn backends(options: &Options) -> Result<()> {
    let directory = match &options.verdicts {
        Some(directory) => directory.clone(),
        None => {
            let directory = fresh_directory()?;
            conformance::every_backend(&directory)?;
            directory
        }
    };
    if options.check { check(&directory) } else { write(&directory) }
}

/// Makes an empty directory for verdicts in the target directory.
pub(crate) fn fresh_directory() -> Result<PathBuf> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata failed")?;
    let directory = metadata.target_directory.join("verdicts").into_std_path_buf();
    let _absent = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Fails if the table does not say what the verdicts say.
pub(crate) fn check(directory: &Path) -> Result<()> {
    let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let table = Table::parse(&text).with_context(|| format!("{FILE} has no table"))?;
    if text != table.render() {
        bail!("{FILE} is not as it is written: run `cargo xtask backends`");
    }
    let bounds = upper_bounds()?;
    for verdict in verdicts(directory)? {
        let column = Column::of(&verdict, &bounds)?;
        let name = &column.backend;
        let seen = table.columns.iter().find(|seen| seen.backend == *name);
        let seen =
            seen.with_context(|| format!("{FILE} has no column `{name}`: run `cargo xtask backends`"))?;
        if !column.rows().eq(seen.rows()) {
            bail!("{FILE} has other rows than the kit has capabilities: run `cargo xtask backends`");
        }
        if (&seen.seen_with, &seen.isolation) != (&column.seen_with, &column.isolation) {
            say(&format!(
                "{FILE}: {name} was seen with {}, and this is {}",
                seen.seen_with, column.seen_with
            ));
            continue;
        }
        let changed = column.cells.iter().filter(|cell| seen.says(&cell.row) != Some(&cell.says));
        let changed = changed.map(|cell| format!("{} is `{}`", cell.row, cell.says)).collect::<Vec<_>>();
        if !changed.is_empty() {
            bail!("{FILE} is stale: for {name}, {}; run `cargo xtask backends`", changed.join(", "));
        }
    }
    Ok(())
}

fn write(directory: &Path) -> Result<()> {
    let bounds = upper_bounds()?;
    let before = fs::read_to_string(FILE).unwrap_or_default();
    let mut table = Table::parse(&before).unwrap_or_default();
    for verdict in verdicts(directory)? {
        table.put(Column::of(&verdict, &bounds)?);
    }
    fs::write(FILE, table.render()).with_context(|| format!("cannot write {FILE}"))
}

/// Reads the whole verdicts of a directory; a backend that was not reached has nothing to say.
fn verdicts(directory: &Path) -> Result<Vec<Value>> {
    let mut verdicts = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("no verdicts are in {}", directory.display()))?
    {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let verdict = serde_json::from_slice::<Value>(&fs::read(&path)?);
        let verdict = verdict.with_context(|| format!("{} is no verdict", path.display()))?;
        if verdict["format"].as_u64() != Some(FORMAT) {
            bail!("{} is a verdict of another format", path.display());
        }
        if verdict["complete"] == true && !verdict["engine"].is_null() {
            verdicts.push(verdict);
        }
    }
    Ok(verdicts)
}

/// What each backend of the command can do at best.
fn upper_bounds() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let told = read(
        cargo(["run", "--quiet", "--package", "agentkernel-cli"])
            .args(WITH_ALL)
            .args(["--", "backends", "--json"]),
    )?;
    let told: Value = serde_json::from_str(&told).context("`agentkernel backends --json` gave no JSON")?;
    let rows = told.as_array().into_iter().flatten().map(|row| {
        let bound = row["upper_bound"].as_array().into_iter().flatten().filter_map(Value::as_str);
        (row["backend"].as_str().unwrap_or_default().to_owned(), bound.map(ToOwned::to_owned).collect())
    });
    Ok(rows.collect())
}

/// The table; columns by name, rows in the kit's order.
#[derive(Debug, Default, PartialEq)]
struct Table {
    rows: Vec<(String, String)>,
    columns: Vec<Column>,
}

/// What one backend can do.
#[derive(Debug, Clone, Default, PartialEq)]
struct Column {
    backend: String,
    seen_with: String,
    isolation: String,
    cells: Vec<Cell>,
}

/// What it can do in one row.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    row: String,
    description: String,
    says: String,
}

impl Column {
    /// Makes the column of a verdict.
    fn of(verdict: &Value, bounds: &BTreeMap<String, BTreeSet<String>>) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let backend = text(&verdict["backend"]);
        let bound = bounds.get(&backend).cloned().unwrap_or_default();
        let mut cells = Vec::new();
        for capability in verdict["capabilities"].as_array().into_iter().flatten() {
            let row = text(&capability["name"]);
            let says = match capability["standing"].as_str() {
                Some("proven") => "yes",
                Some("unproven") => "claimed",
                Some("refused" | "absent") if bound.contains(&row) => "elsewhere",
                Some("refused" | "absent") => "no",
                _ => bail!("{backend}: `{row}` does not hold what it claims: see `cargo xtask conformance`"),
            };
            let description = text(&capability["description"]);
            cells.push(Cell { row, description, says: says.to_owned() });
        }
        let engine = &verdict["engine"];
        let version = text(&engine["version"]);
        let seen_with = match backend == "apple" && machine::has_stand_in() {
            true => format!("a stand-in for {version}, on no Mac"),
            false => format!("{version}, {}", machine::kernel()),
        };
        Ok(Self { backend, seen_with, isolation: text(&engine["isolation"]), cells })
    }

    fn says(&self, row: &str) -> Option<&str> {
        self.cells.iter().find(|cell| cell.row == row).map(|cell| cell.says.as_str())
    }

    fn rows(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().map(|cell| cell.row.as_str())
    }
}

impl Table {
    /// Puts a column in its place, and the rows that it has.
    fn put(&mut self, column: Column) {
        let rows = column.cells.iter().map(|cell| (cell.row.clone(), cell.description.clone()));
        self.rows = rows.collect();
        self.columns.retain(|other| other.backend != column.backend);
        self.columns.push(column);
        self.columns.sort_by(|a, b| a.backend.cmp(&b.backend));
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        let mut line = |cells: Vec<&str>| text.push_str(&format!("| {} |\n", cells.join(" | ")));
        let with = |first: [&'static str; 2], of: fn(&Column) -> &str| {
            first.into_iter().chain(self.columns.iter().map(of)).collect::<Vec<_>>()
        };
        line(with(["capability", "what it means"], |column| &column.backend));
        line(with(["---", "---"], |_| "---"));
        line(with([SEEN_WITH, ""], |column| &column.seen_with));
        line(with([ISOLATION, ""], |column| &column.isolation));
        for (name, description) in &self.rows {
            let cells = self.columns.iter().map(|column| column.says(name).unwrap_or_default());
            let name = format!("`{name}`");
            line([name.as_str(), description].into_iter().chain(cells).collect());
        }
        text
    }

    /// Reads what was rendered.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
        let mut next = || Some(lines.next()?.split(" | ").map(ToOwned::to_owned).collect::<Vec<_>>());
        let names = next()?;
        let (_rule, seen_with, isolation) = (next()?, next()?, next()?);
        let columns = names.into_iter().zip(seen_with).zip(isolation).skip(2);
        let mut columns = columns
            .map(|((backend, seen_with), isolation)| Column {
                backend,
                seen_with,
                isolation,
                ..Column::default()
            })
            .collect::<Vec<_>>();
        let mut rows = Vec::new();
        while let Some(cells) = next() {
            let [name, description, cells @ ..] = cells.as_slice() else { return None };
            let (row, description) = (name.trim_matches('`').to_owned(), description.clone());
            for (column, says) in columns.iter_mut().zip(cells) {
                let (row, description) = (row.clone(), description.clone());
                column.cells.push(Cell { row, description, says: says.clone() });
            }
            rows.push((row, description));
        }
        Some(Self { rows, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(backend: &str, standing: &str) -> Value {
        json!({
            "backend": backend,
            "engine": {"version": "1.2", "isolation": "process", "warnings": []},
            "capabilities": [
                {"name": "pids", "description": "Processes are limited.", "standing": standing},
                {"name": "stats", "description": "Use can be read.", "standing": "proven"},
            ],
        })
    }

    fn column(backend: &str, standing: &str) -> Result<Column> {
        let bounds = BTreeMap::from([("strong".to_owned(), BTreeSet::from(["pids".to_owned()]))]);
        Column::of(&verdict(backend, standing), &bounds)
    }

    fn cell(backend: &str, standing: &str) -> String {
        column(backend, standing)
            .map_or_else(|error| error.to_string(), |column| column.cells[0].says.clone())
    }

    #[test]
    fn what_is_rendered_is_read_back() {
        let mut table = Table::default();
        table.put(column("weak", "refused").unwrap_or_default());
        table.put(column("strong", "proven").unwrap_or_default());
        assert_eq!(Table::parse(&table.render()), Some(table));
    }

    #[test]
    fn a_column_is_replaced_by_its_own_backend_only() {
        let mut table = Table::default();
        for (backend, standing) in [("weak", "refused"), ("strong", "absent"), ("strong", "proven")] {
            table.put(column(backend, standing).unwrap_or_default());
        }
        let cells = table.columns.iter().map(|column| column.cells[0].says.as_str());
        assert_eq!(cells.collect::<Vec<_>>(), ["yes", "no"]);
    }

    #[test]
    fn what_the_backend_can_elsewhere_is_told() {
        assert_eq!((cell("strong", "refused"), cell("weak", "refused")), ("elsewhere".into(), "no".into()));
    }

    #[test]
    fn a_broken_claim_is_no_row_of_a_table() {
        assert!(column("strong", "broken").is_err());
    }
}
