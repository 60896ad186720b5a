//! `nobat backup` and `nobat restore`: the file as it was at one moment.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::vault;

/// `nobat backup`
#[derive(Args)]
pub(crate) struct Backup {
    /// Where the copy is to be; nothing may be there
    to: PathBuf,
    /// The SQLite file to copy; a nobat may be running on it
    #[arg(long, env = "NOBAT_DATA", default_value = "nobat.db")]
    data: PathBuf,
}

/// `nobat restore`
#[derive(Args)]
pub(crate) struct Restore {
    /// The copy
    from: PathBuf,
    /// The SQLite file that it becomes; nothing may be there
    #[arg(long, env = "NOBAT_DATA", default_value = "nobat.db")]
    data: PathBuf,
}

impl Backup {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        nobat_sqlite::backup(&self.data, &self.to)?;
        eprintln!("{} is {} as it was a moment ago", self.to.display(), self.data.display());
        let key = vault::key_file(&self.data);
        if key.exists() {
            eprintln!("the master key is not in it: keep a copy of {} in another place", key.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Restore {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        nobat_sqlite::restore(&self.from, &self.data)?;
        eprintln!("{} is {} again; what was accepted after that is not in it", self.data.display(), self.from.display());
        let key = vault::key_file(&self.data);
        if !key.exists() {
            eprintln!("put the master key back as {}, if secrets were kept under one", key.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}
