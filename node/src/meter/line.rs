//! The form of every line in the ledger: `CRC JSON\n`, where CRC is the CRC-32 of the JSON as 8 hex digits.
//! JSON escapes line feeds, so a line feed is always an end. A torn or damaged line fails its sum and is skipped.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

/// No honest line is longer: a record is under a kilobyte, and one of folded sums holds a few thousand entries.
/// What is longer is damage, and is read past without being kept.
const LINE_BYTES_MAX: u64 = 64 << 20;

const SUM_BYTES: usize = 8;

/// The line for a value.
pub(super) fn encode(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(512);
    line.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut line, value)?;
    let sum = crc32fast::hash(&line[SUM_BYTES + 1..]);
    // Eight digits into eight bytes: cannot fail.
    let _ = write!(&mut line[..SUM_BYTES], "{sum:08x}");
    line.push(b'\n');
    Ok(line)
}

/// The JSON of a line with its end, if the line is whole.
fn check(line: &[u8]) -> Option<&[u8]> {
    let body = line.strip_suffix(b"\n")?;
    let (sum, json) = (body.get(..SUM_BYTES)?, body.get(SUM_BYTES + 1..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (body[SUM_BYTES] == b' ' && crc32fast::hash(json) == sum).then_some(json)
}

/// The lines of a file, one in memory at a time.
#[derive(Debug)]
pub(super) struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
    /// How far the file has been read, in bytes.
    offset: u64,
    /// Where the last whole line ended, in bytes.
    whole: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(256 << 10, File::open(path)?);
        Ok(Self { file, line: Vec::new(), offset: 0, whole: 0 })
    }

    /// Where the last whole line ended, in bytes from the beginning.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.whole
    }

    /// Moves to the next whole line; false at the end.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        loop {
            self.line.clear();
            let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(false);
            }
            self.offset += read as u64;
            if check(&self.line).is_some() {
                self.whole = self.offset;
                return Ok(true);
            }
        }
    }

    /// The value of the next whole line that holds one; `None` at the end.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        while self.advance()? {
            if let Some(value) = check(&self.line).and_then(|json| serde_json::from_slice(json).ok()) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Cuts off what follows the last whole line, as a killed writer leaves it.
pub(super) fn cut_torn_tail(path: &Path) -> io::Result<u64> {
    let mut lines = Lines::open(path)?;
    while lines.advance()? {}
    let whole = lines.whole_bytes();
    let file = File::options().write(true).open(path)?;
    if file.metadata()?.len() > whole {
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(whole)
}
