//! Undo log of a file: the bytes that each write replaced since the last sync of the file.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

/// Unsynced writes that remain after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// No write remains.
    Nothing,
    /// Some first writes remain, and none after them.
    Earliest,
    /// Any sectors of any writes remain. A sector is as one of the writes left it, never a mixture.
    Sectors,
}

/// Losses of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Number of writes that were lost, whole or in part.
    pub writes: usize,
    /// Number of writes that were lost in part.
    pub torn: usize,
}

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Length of the header before the old bytes (`struct record` in `disk.c`).
const HEADER: usize = 32;

/// One write, or a truncation, which is a write of 0 bytes. A truncation that remains leaves zeros where it
/// cut. SQLite truncates only what it has synced before, except for files that it is about to remove.
#[derive(Debug)]
struct Write<'a> {
    offset: usize,
    count: usize,
    /// Length of the file before the write.
    size_before: usize,
    /// Bytes that the write replaced, up to the end of the file.
    old: &'a [u8],
}

/// Restores a file to its content before the lost writes of its undo log.
pub fn undo(log: &Path, file: &Path, rest: Rest, chance: &mut StdRng) -> std::io::Result<Lost> {
    let log = std::fs::read(log)?;
    let writes = read(&log);
    // A missing file has been deleted.
    if writes.is_empty() || !file.exists() {
        return Ok(Lost::default());
    }
    let mut image = std::fs::read(file)?;
    let lost = lose(&writes, &mut image, rest, chance);
    std::fs::write(file, image)?;
    Ok(lost)
}

/// Returns all complete records. If a record is incomplete, the program was killed before it began that
/// write.
fn read(mut log: &[u8]) -> Vec<Write<'_>> {
    let mut writes = Vec::new();
    while let Some((header, rest)) = log.split_at_checked(HEADER) {
        let field =
            |number: usize| usize::from_ne_bytes(std::array::from_fn(|byte| header[8 * number + byte]));
        let Some((old, rest)) = rest.split_at_checked(field(3)) else { break };
        writes.push(Write { offset: field(0), count: field(1), size_before: field(2), old });
        log = rest;
    }
    writes
}

/// Undoes the lost writes, the last one first. A sector of which one write remains keeps the earlier writes,
/// too.
fn lose(writes: &[Write<'_>], image: &mut Vec<u8>, rest: Rest, chance: &mut StdRng) -> Lost {
    let kept = match rest {
        Rest::Earliest => chance.random_range(0..=writes.len()),
        Rest::Nothing | Rest::Sectors => 0,
    };
    let (mut settled, mut lost) = (HashSet::new(), Lost::default());
    let mut size = writes.first().map_or(image.len(), |write| write.size_before);
    for (number, write) in writes.iter().enumerate().rev() {
        let (mut remaining, mut gone) = (0, 0);
        for sector in write.sectors() {
            let remains =
                number < kept || (rest == Rest::Sectors && write.count > 0 && chance.random_bool(0.5));
            if remains || settled.contains(&sector) {
                settled.insert(sector);
                size = size.max((write.offset + write.count).min((sector + 1) * SECTOR));
                remaining += 1;
            } else {
                write.take_back(sector * SECTOR..(sector + 1) * SECTOR, image);
                gone += 1;
            }
        }
        lost.writes += usize::from(gone > 0);
        lost.torn += usize::from(gone > 0 && remaining > 0);
    }
    image.resize(size, 0);
    lost
}

impl Write<'_> {
    /// Returns the end of the write. For a truncation, returns the old end of the file.
    fn end(&self) -> usize {
        self.offset + self.count.max(self.old.len())
    }

    fn sectors(&self) -> Range<usize> {
        self.offset / SECTOR..self.end().div_ceil(SECTOR)
    }

    /// Restores the old bytes within this range.
    fn take_back(&self, within: Range<usize>, image: &mut Vec<u8>) {
        let (from, to) = (within.start.max(self.offset), within.end.min(self.end()));
        if image.len() < to {
            image.resize(to, 0);
        }
        for (place, byte) in image.iter_mut().enumerate().take(to).skip(from) {
            *byte = self.old.get(place - self.offset).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// File that is written to, and its undo log.
    #[derive(Default)]
    struct Made {
        image: Vec<u8>,
        log: Vec<u8>,
    }

    impl Made {
        fn of(image: &[u8]) -> Self {
            Self { image: image.to_vec(), log: Vec::new() }
        }

        fn note(&mut self, offset: usize, count: usize, until: usize) {
            let old = self.image.get(offset..until.min(self.image.len())).unwrap_or_default();
            for field in [offset, count, self.image.len(), old.len()] {
                self.log.extend(field.to_ne_bytes());
            }
            self.log.extend(old);
        }

        fn write(mut self, offset: usize, bytes: &[u8]) -> Self {
            let end = offset + bytes.len();
            self.note(offset, bytes.len(), end);
            self.image.resize(self.image.len().max(end), 0);
            self.image[offset..end].copy_from_slice(bytes);
            self
        }

        fn truncate(mut self, size: usize) -> Self {
            self.note(size, 0, usize::MAX);
            self.image.truncate(size);
            self
        }

        fn cut(mut self, rest: Rest, seed: u64) -> (Vec<u8>, Lost) {
            let lost = lose(&read(&self.log), &mut self.image, rest, &mut StdRng::seed_from_u64(seed));
            (self.image, lost)
        }
    }

    #[test]
    fn file_without_remaining_writes_is_as_last_synced() {
        let (image, lost) = Made::of(b"abcdef")
            .write(1, b"XX")
            .write(4, b"YYYYYY")
            .truncate(3)
            .write(2, b"ZZ")
            .cut(Rest::Nothing, 1);
        assert_eq!((image.as_slice(), lost), (b"abcdef".as_slice(), Lost { writes: 4, torn: 0 }));
    }

    #[test]
    fn latest_writes_are_lost_first() {
        let made = || Made::of(b"abcdef").write(0, b"X").write(5, b"YYY").write(1, b"Z");
        let stages: [&[u8]; 4] = [b"abcdef", b"Xbcdef", b"XbcdeYYY", b"XZcdeYYY"];
        let seen: HashSet<Vec<u8>> = (0..100).map(|seed| made().cut(Rest::Earliest, seed).0).collect();
        assert_eq!(seen, stages.map(<[u8]>::to_vec).into());
    }

    #[test]
    fn each_sector_is_as_one_of_the_writes_left_it() {
        let made = || Made::of(&[b'a'; SECTOR]).write(0, &[b'b'; 2 * SECTOR]).write(0, &[b'c'; SECTOR]);
        let mut seen: HashSet<(u8, Option<u8>)> = HashSet::new();
        for seed in 0..100 {
            let (image, _) = made().cut(Rest::Sectors, seed);
            for sector in image.chunks(SECTOR) {
                assert!(
                    sector.len() == SECTOR && sector.iter().all(|byte| *byte == sector[0]),
                    "a sector is whole"
                );
            }
            seen.insert((image[0], image.get(SECTOR).copied()));
        }
        let all = [b'a', b'b', b'c'].into_iter().flat_map(|first| [(first, None), (first, Some(b'b'))]);
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn half_lost_write_is_torn() {
        let torn = (0..100).filter(|seed| {
            Made::default().write(0, &[b'b'; 2 * SECTOR]).cut(Rest::Sectors, *seed).1.torn == 1
        });
        assert!((30..70).contains(&torn.count()), "about half of the writes are torn");
    }

    #[test]
    fn incomplete_record_undoes_nothing() {
        let mut made = Made::of(b"abc").write(0, b"X");
        made.log.extend([0; HEADER - 1]);
        assert_eq!(made.cut(Rest::Nothing, 1).0, b"abc");
    }
}
