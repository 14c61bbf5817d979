//! Reads little-endian fields one after the other. Never panics: what is missing is an error.

use crate::Error;

pub(crate) struct Cursor<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self.at.saturating_add(len);
        let slice = self.bytes.get(self.at..end).ok_or(Error::TooShort {
            what: self.what,
            need: end,
            have: self.bytes.len(),
        })?;
        self.at = end;
        Ok(slice)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Magic and version, the first nine bytes of everything we write.
    pub(crate) fn magic_and_version(&mut self, magic: &[u8; 8]) -> Result<(), Error> {
        self.magic(magic)?;
        self.version()
    }

    pub(crate) fn magic(&mut self, magic: &[u8; 8]) -> Result<(), Error> {
        if &self.array::<8>()? == magic { Ok(()) } else { Err(Error::BadMagic { what: self.what }) }
    }

    pub(crate) fn version(&mut self) -> Result<(), Error> {
        let found = self.u8()?;
        if found != crate::FORMAT_VERSION {
            return Err(Error::UnknownVersion { found, supported: crate::FORMAT_VERSION });
        }
        Ok(())
    }
}

/// Splits off the CRC32C at the end and checks it.
pub(crate) fn check_crc<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let (body, crc) =
        bytes.split_last_chunk::<4>().ok_or(Error::TooShort { what, need: 4, have: bytes.len() })?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Error::BadChecksum { what });
    }
    Ok(body)
}

/// Appends the CRC32C of everything so far.
pub(crate) fn push_crc(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}
