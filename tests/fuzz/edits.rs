//! Turns the bytes that a fuzzer makes into edits of a file that was rightly written.
//!
//! Checksums stop a blind fuzzer at the door. So an input is a list of edits, and says whether the checksums are mended after
//! them; what lies behind the checksums is then reached with nearly every input.

/// Bytes of a block's header, and of a segment's footer.
const ENVELOPE_BYTES: usize = 96;
/// Bytes of an entry in the index of a sealed segment.
const ENTRY_BYTES: usize = 48;
/// Longest file that edits make.
const FILE_BYTES_MAX: usize = 1 << 16;

/// An input, read from the front. What is missing reads as zero.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A place in `0..bound`, zero where there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number(2) as usize).checked_rem(bound).unwrap_or(0)
    }

    /// At most so many of the bytes that are left.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.take(self.0.len())
    }

    /// A number that programs stumble over, or any.
    fn telling_number(&mut self, near: u64) -> u64 {
        match self.byte() % 16 {
            0 => 0,
            1 => 1,
            2 => 7,
            3 => near.wrapping_add(1),
            4 => near.wrapping_sub(1),
            5 => near.wrapping_add(8),
            6 => near.wrapping_sub(8),
            7 => 1 << 31,
            8 => u64::from(u32::MAX),
            9 => 1 << 40,
            10 => i64::MAX as u64,
            11 => u64::MAX,
            12 => u64::MAX - 7,
            13 => self.number(1),
            14 => self.number(2),
            _ => self.number(8),
        }
    }
}

/// Carries out the edits that an input names, until it is used up.
pub fn edit(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    while !input.is_empty() && bytes.len() < FILE_BYTES_MAX {
        let choice = input.byte();
        // Headers are at the front, footers at the end, and most of what is believed stands in them.
        let near = choice & 0x40 != 0;
        let from = (if near { usize::from(input.byte()) } else { input.number(2) as usize }).checked_rem(bytes.len()).unwrap_or(0);
        let at = if choice & 0x80 == 0 { from } else { bytes.len().saturating_sub(from + 1) };
        match choice & 0x0f {
            0 if !bytes.is_empty() => bytes[at] = input.byte(),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << (input.byte() % 8),
            2 | 3 | 10..=12 if bytes.len() >= 8 => {
                let at = (at & !7).min(bytes.len() - 8);
                let was = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
                bytes[at..at + 8].copy_from_slice(&input.telling_number(was).to_le_bytes());
            }
            4 | 13 | 14 if bytes.len() >= 4 => {
                let at = (at & !3).min(bytes.len() - 4);
                let was = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
                bytes[at..at + 4].copy_from_slice(&(input.telling_number(was.into()) as u32).to_le_bytes());
            }
            5 => bytes.truncate(at),
            6 => {
                let count = usize::from(input.byte() % 32);
                bytes.splice(at..at, input.take(count).iter().copied());
            }
            7 => drop(bytes.drain(at..(at + usize::from(input.byte())).min(bytes.len()))),
            8 => {
                // What a misdirected or a stale write leaves: bytes of one place in another.
                let length = 8 * input.byte() as usize;
                let copy: Vec<u8> = bytes[at..(at + length).min(bytes.len())].to_vec();
                let to = input.below(bytes.len() + 1);
                let end = (to + copy.len()).min(bytes.len());
                bytes.splice(to..end, copy);
            }
            _ => {
                let count = 8 * input.byte() as usize;
                bytes.extend_from_slice(input.take(count));
            }
        }
    }
}

/// Edits what a document says, as the input names it, and leaves it JSON.
pub fn edit_document(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    while !input.is_empty() {
        let mut places = Vec::new();
        list_places(&document, String::new(), &mut places);
        let place = &places[input.below(places.len())];
        let Some(value) = document.pointer_mut(place) else { return };
        let choice = input.byte();
        let near = value.as_u64().unwrap_or(0);
        match (choice % 8, value) {
            (0, serde_json::Value::Array(items)) => drop(items.pop()),
            (1, serde_json::Value::Array(items)) => items.extend(items.first().cloned()),
            (2, value) => *value = serde_json::Value::Null,
            (3, value) => *value = serde_json::Value::Array(Vec::new()),
            (4, value) => *value = String::from_utf8_lossy(input.take(usize::from(choice / 8))).into(),
            (_, value) => *value = input.telling_number(near).into(),
        }
    }
    *bytes = document.to_string().into_bytes();
}

fn list_places(value: &serde_json::Value, place: String, places: &mut Vec<String>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| list_places(value, format!("{place}/{name}"), places)),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| list_places(value, format!("{place}/{at}"), places)),
        _ => {}
    }
    places.push(place);
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) as usize
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn mend_envelope(envelope: &mut [u8]) {
    let crc = crc32c::crc32c(&envelope[..92]);
    put_crc(envelope, 92, crc);
}

/// Makes the checksums of a block right. Returns its length, if its body is there.
fn mend_block(block: &mut [u8]) -> Option<usize> {
    if block.len() < ENVELOPE_BYTES {
        return None;
    }
    let end = u64_at(block, 80).checked_add(ENVELOPE_BYTES).filter(|end| *end <= block.len());
    if let Some(end) = end {
        let crc = crc32c::crc32c(&block[ENVELOPE_BYTES..end]);
        put_crc(block, 88, crc);
    }
    mend_envelope(&mut block[..ENVELOPE_BYTES]);
    end
}

/// Makes the checksums of all blocks of an active segment right, as far as they follow each other.
pub fn mend_active(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(length) = mend_block(&mut bytes[at..]) {
        at += length;
    }
}

/// Makes the checksums of a sealed segment right: blocks, as far as index and footer lead to them, their copies in the index,
/// table of producers and index, footer.
pub fn mend_sealed(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(ENVELOPE_BYTES) else {
        return;
    };
    let table = u64_at(bytes, footer + 64);
    let index = table.saturating_add(u64_at(bytes, footer + 80));
    let entries = u32_at(bytes, footer + 28).checked_mul(ENTRY_BYTES);
    if entries.and_then(|entries| entries.checked_add(index)) == Some(footer) && table <= index {
        let mut digest = 0;
        for entry in (index..footer).step_by(ENTRY_BYTES) {
            let at = u64_at(bytes, entry);
            if at < table && mend_block(&mut bytes[at..table]).is_some() {
                digest = crc32c::crc32c_append(digest, &bytes[at..at + ENVELOPE_BYTES]);
                bytes.copy_within(at + 92..at + 96, entry + 20);
            }
        }
        put_crc(bytes, footer + 72, digest);
        let (table_crc, index_crc) = (crc32c::crc32c(&bytes[table..index]), crc32c::crc32c(&bytes[index..footer]));
        put_crc(bytes, footer + 76, table_crc);
        put_crc(bytes, footer + 88, index_crc);
    }
    mend_envelope(&mut bytes[footer..]);
}

/// Makes the checksums of a file of runs right: chunks, as far as index and footer lead to them, index and footer.
pub fn mend_runs(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(ENVELOPE_BYTES) else {
        return;
    };
    let index = u64_at(bytes, footer + 56);
    if index <= footer && index.is_multiple_of(8) {
        mend_chunks(bytes, index, footer);
        let crc = crc32c::crc32c(&bytes[index..footer]);
        put_crc(bytes, footer + 88, crc);
    }
    mend_envelope(&mut bytes[footer..]);
}

/// The chunks that an index names: per slot its types and the number of its chunks, per chunk five words.
fn mend_chunks(bytes: &mut [u8], index: usize, footer: usize) {
    let mut at = index;
    while at + 16 <= footer {
        let chunks = u64_at(bytes, at + 8);
        at += 16;
        for _ in 0..chunks {
            if at + 40 > footer {
                return;
            }
            let (position, length) = (u64_at(bytes, at), u64_at(bytes, at + 8));
            if let Some(end) = position.checked_add(length).filter(|end| *end <= index) {
                let crc = crc32c::crc32c(&bytes[position..end]);
                bytes[at + 32..at + 40].copy_from_slice(&u64::from(crc).to_le_bytes());
            }
            at += 40;
        }
    }
}

/// Makes the checksum of a document right, if it is JSON; it covers `content` as compact JSON with sorted keys.
pub fn mend_document(bytes: &mut Vec<u8>) {
    if let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(bytes)
        && let Some(fields) = document.as_object_mut()
    {
        let content = fields.get("content").cloned().unwrap_or_default();
        fields.insert("crc32c".to_string(), format!("{:08x}", crc32c::crc32c(sorted(&content).to_string().as_bytes())).into());
        *bytes = document.to_string().into_bytes();
    }
}

fn sorted(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            fields.into_iter().collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}
