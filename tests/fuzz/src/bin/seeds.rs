//! Writes the seeds of every target: `seeds DIR` makes `DIR/TARGET/seed-N`.
use std::{fs, io, path::Path};

use agentkernel_fuzz::TARGETS;

fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: seeds DIR"))?;
    for target in TARGETS {
        let directory = Path::new(&directory).join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
