//! A disk of the worse kind below the program: one that forgets what was not synced when the power goes, that is full, or broken.
//!
//! It is a library that is preloaded into the program (`tests/disk/disk.c`); this is its other half, outside.

pub mod undo;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::disk::undo::{Lost, Rest};
use crate::world::program::workspace;

/// A disk, and what is on it.
pub struct Disk {
    /// Where the program keeps its files.
    folder: PathBuf,
    /// Where everything else is.
    workshop: PathBuf,
    cache: Cache,
}

/// What becomes of writes that were not synced yet when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// They are on disk all the same.
    None,
    /// Any of them can be lost. The program syncs every COMMIT, as nobat does.
    Forgets,
    /// The same, and COMMITs are not synced, as they are not with SQLite's `synchronous=NORMAL`: what was answered can be lost.
    ForgetsCommits,
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No file can grow (`ENOSPC`).
    Full,
    /// Nothing can be written (`EROFS`).
    ReadOnly,
    /// Nothing can be written or synced (`EIO`).
    Broken,
}

/// What the power cuts of a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// How many cuts there were.
    pub cuts: usize,
    /// How many of them took something of the write-ahead log: a transaction that nobody was told of yet.
    pub in_commits: usize,
    /// How many took something of the file itself, in the middle of a checkpoint.
    pub in_checkpoints: usize,
    /// How many writes were lost in whole or in part.
    pub writes: usize,
    /// How many of these in part.
    pub torn: usize,
}

impl Disk {
    /// Makes one that has its files in `folder/data`.
    pub fn new(folder: &Path, cache: Cache) -> anyhow::Result<Self> {
        // The program names its files by their absolute names, without links in them.
        let workshop = folder.canonicalize()?;
        let disk = Self { folder: workshop.join("data"), workshop, cache };
        for folder in [&disk.folder, &disk.undo()] {
            std::fs::create_dir_all(folder)?;
        }
        let source = workspace().join("tests/disk/disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", "-o"]).arg(disk.library());
        let status = compiler.arg(source).args(["-ldl", "-lpthread"]).status().context("cc cannot be run")?;
        ensure!(status.success(), "cc failed");
        Ok(disk)
    }

    /// The database on it.
    pub fn data(&self) -> PathBuf {
        self.folder.join("nobat.db")
    }

    /// The variables that put it below a program.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let mut variables =
            vec![("LD_PRELOAD", text(&self.library())), ("DISK_FOLDER", text(&self.folder)), ("DISK_FAULT", text(&self.fault()))];
        if self.cache != Cache::None {
            variables.push(("DISK_UNDO", text(&self.undo())));
        }
        if self.cache == Cache::ForgetsCommits {
            variables.push(("DISK_LAZY", "1".to_owned()));
        }
        variables
    }

    /// From now on this is wrong with it.
    pub fn fail(&self, fault: Fault) {
        let word = match fault {
            Fault::Full => "full",
            Fault::ReadOnly => "read-only",
            Fault::Broken => "broken",
        };
        std::fs::write(self.fault(), word).expect("a file that can be written");
    }

    /// Nothing is wrong with it any more.
    pub fn heal(&self) {
        std::fs::remove_file(self.fault()).expect("a fault");
    }

    /// Cuts the power, once the program has been killed: of each file's writes that were not synced, some are lost.
    ///
    /// Either all of them, or the latest, or any sectors of any of them, as a disk loses them that writes in an order of its own.
    pub fn cut(&self, chance: &mut StdRng, losses: &mut Losses) -> anyhow::Result<()> {
        losses.cuts += 1;
        let rest = [Rest::Nothing, Rest::Earliest, Rest::Sectors][chance.random_range(0..3)];
        for entry in self.undo().read_dir()? {
            let undo = entry?.path();
            let file = self.folder.join(undo.file_stem().context("a name")?);
            let lost = undo::undo(&undo, &file, rest, chance).with_context(|| format!("{} cannot be undone", file.display()))?;
            losses.count(&file, lost);
            std::fs::remove_file(undo)?;
        }
        // It is memory that processes share, and no longer there after a power cut.
        let index = self.folder.join("nobat.db-shm");
        if index.exists() {
            std::fs::remove_file(index)?;
        }
        Ok(())
    }

    fn library(&self) -> PathBuf {
        self.workshop.join("disk.so")
    }

    fn undo(&self) -> PathBuf {
        self.workshop.join("undo")
    }

    fn fault(&self) -> PathBuf {
        self.workshop.join("fault")
    }
}

impl Losses {
    fn count(&mut self, file: &Path, lost: Lost) {
        let has_lost = usize::from(lost.writes > 0);
        match file.extension() {
            Some(extension) if extension == "db" => self.in_checkpoints += has_lost,
            _ => self.in_commits += has_lost,
        }
        self.writes += lost.writes;
        self.torn += lost.torn;
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count, meaning) in [
            ("power cuts", self.cuts, ""),
            ("in commits", self.in_commits, "cuts that took writes from the log"),
            ("in checkpoints", self.in_checkpoints, "cuts that took writes from the file itself"),
            ("writes lost", self.writes, ""),
            ("torn", self.torn, "lost in part"),
        ] {
            writeln!(f, "{}", format!("{name:<14}{count:>8}  {meaning}").trim_end())?;
        }
        Ok(())
    }
}
