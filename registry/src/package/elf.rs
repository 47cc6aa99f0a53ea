//! Reads just enough of an ELF file to tell whether it runs alone. Source: ELF-64 object file format.

use neap_sdk::limits;

const ELFCLASS64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_INTERP: u32 = 3;
const PROGRAM_HEADER_BYTES: usize = 56;

/// Checks that the file which begins with `head` is an executable for x86-64 Linux that needs no loader. The
/// error says what it is instead. `head` must hold the program headers; linkers put them right behind the header.
pub(super) fn check_static(head: &[u8]) -> Result<(), String> {
    let u16_at = |at: usize| head.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let u32_at = |at: usize| head.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let truncated = || "the ELF file is cut off".to_owned();
    if head.get(4..6).ok_or_else(truncated)? != [ELFCLASS64, LITTLE_ENDIAN] {
        return Err(
            "it is not a 64-bit little-endian executable; build it for x86_64-unknown-linux-musl".to_owned()
        );
    }
    if !matches!(u16_at(16).ok_or_else(truncated)?, ET_EXEC | ET_DYN) {
        return Err("it is an object file or a core dump, not an executable".to_owned());
    }
    if u16_at(18).ok_or_else(truncated)? != EM_X86_64 {
        return Err("it is for another architecture; build it for x86_64-unknown-linux-musl".to_owned());
    }
    let table = head.get(32..40).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let table = usize::try_from(table.ok_or_else(truncated)?).map_err(|_| truncated())?;
    let count = usize::from(u16_at(56).ok_or_else(truncated)?);
    if count == 0 {
        return Err("it has no program headers, so nothing can be executed".to_owned());
    }
    for index in 0..count {
        let header = index.checked_mul(PROGRAM_HEADER_BYTES).and_then(|offset| table.checked_add(offset));
        let header = header.filter(|at| *at < limits::BLOB_BUFFER_BYTES).ok_or_else(truncated)?;
        if u32_at(header).ok_or_else(truncated)? == PT_INTERP {
            return Err("it is dynamically linked and needs a loader and libraries that an image of this file alone \
                        does not have; link it statically (target x86_64-unknown-linux-musl, or CGO_ENABLED=0 in Go)"
                .to_owned());
        }
    }
    Ok(())
}
