//! Lines of input: where they end, what is not part of them, which are too long.

use std::io::BufRead;

/// Longest line that is read; a longer one is rejected and skipped without being held. 1 MiB.
pub const LINE_BYTES_MAX: usize = 1 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A line without its end, or the reason why it cannot be taken.
pub type Line<'a> = Result<&'a [u8], String>;

/// Calls `take` with the number (from 1) and bytes of each line. LF and CR LF end a line, the last may lack it; a byte
/// order mark before the first is dropped. Returns how many bytes were read.
pub fn for_each_line<Error: From<std::io::Error>>(mut input: impl BufRead, mut take: impl FnMut(u64, Line<'_>, u64) -> Result<(), Error>) -> Result<u64, Error> {
    let mut line = Vec::new();
    let (mut number, mut bytes) = (0u64, 0u64);
    loop {
        line.clear();
        let read = read_line(&mut input, &mut line)?;
        if read == 0 {
            return Ok(bytes);
        }
        number += 1;
        bytes += read as u64;
        if line.len() > LINE_BYTES_MAX {
            take(number, Err(format!("the line has {read} bytes, over the limit of {LINE_BYTES_MAX}")), bytes)?;
            continue;
        }
        let mut content = line.strip_suffix(b"\n").unwrap_or(&line);
        content = content.strip_suffix(b"\r").unwrap_or(content);
        if number == 1 {
            content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
        }
        take(number, Ok(content), bytes)?;
    }
}

/// Appends a line with its end, but no more than one byte over the limit of it. Returns how many bytes the line has.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut read = 0;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = available.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(available.len(), |end| end + 1);
        let room = (LINE_BYTES_MAX + 2).saturating_sub(line.len());
        line.extend_from_slice(&available[..used.min(room)]);
        input.consume(used);
        read += used;
        if end.is_some() || used == 0 {
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, String>> {
        let mut seen = Vec::new();
        for_each_line::<std::io::Error>(std::io::BufReader::with_capacity(7, input), |_, line, _| {
            seen.push(line.map(|line| String::from_utf8_lossy(line).into_owned()));
            Ok(())
        })
        .unwrap();
        seen
    }

    #[test]
    fn line_ends_and_marks_are_not_content() {
        let text = |lines: &[&str]| lines.iter().map(|line| Ok(line.to_string())).collect::<Vec<_>>();
        assert_eq!(lines(b""), text(&[]));
        assert_eq!(lines(b"a\nb"), text(&["a", "b"]));
        assert_eq!(lines(b"\xEF\xBB\xBFa longer line\r\n\r\nb\n"), text(&["a longer line", "", "b"]));
    }

    #[test]
    fn a_line_over_the_limit_is_rejected_and_the_next_one_read() {
        let mut input = vec![b'x'; LINE_BYTES_MAX + 10];
        input.extend_from_slice(b"\nnext\n");
        let seen = lines(&input);
        assert!(seen[0].as_ref().is_err_and(|error| error.contains("over the limit")), "{:?}", seen[0]);
        assert_eq!(seen[1], Ok("next".to_owned()));
    }
}
