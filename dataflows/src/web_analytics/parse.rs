//! Reads requests from lines of an access log: NCSA *combined* or *common* format, or JSON.
//!
//! ```text
//! host ident user [day/Mon/year:hh:mm:ss +hhmm] "request" status bytes                       common
//! host ident user [day/Mon/year:hh:mm:ss +hhmm] "request" status bytes "referrer" "agent"    combined
//! ```
//!
//! What the formats leave open is decided here:
//!
//! | in the line | result |
//! | --- | --- |
//! | `\"` and `\\` in a quoted field, the host or the user | `"` and `\` |
//! | any other backslash, such as `\xe4` | kept as text: the bytes behind it need not be UTF-8 |
//! | `ident` | dropped: no server has filled it for decades |
//! | a user with spaces | kept; the user ends before the first ` [` |
//! | user `""` | empty, as Apache writes an empty user name |
//! | request line other than `METHOD TARGET PROTOCOL` | method and protocol empty, path = the request line |
//! | bytes `-` | 0 |
//! | no referrer and agent (common format) | `-` |
//! | second 60 | a leap second counts as the first second of the next minute, as in POSIX time |
//! | `\n` or `\r\n` at the end, byte order mark at the start | dropped |
//! | empty, over-long, not UTF-8, with a NUL byte or a line feed inside, text after the last field | error |
//!
//! A JSON line has the fields of [`Request`] and no others.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use thiserror::Error;

use super::Request;
use super::calendar::{Date, MONTHS};

/// Longest line that is read, in bytes, without its end of line.
///
/// Apache takes at most 8,190 bytes of request line and of each header by default, and writes an
/// unprintable byte as four: request, referrer and agent come to 98,280 bytes.
pub const LINE_BYTES_MAX: usize = 128 * 1024;

/// Why a line is not a request. Columns count bytes from 1, a byte order mark included.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    #[error("empty line")]
    Empty,
    #[error("line of {bytes} bytes is too long: at most {LINE_BYTES_MAX} are read")]
    TooLong { bytes: usize },
    #[error("invalid UTF-8 at column {column}")]
    NotUtf8 { column: usize },
    #[error("NUL byte at column {column}: was the file cut off in a crash?")]
    Nul { column: usize },
    #[error("line feed at column {column}: one line holds one request")]
    LineFeed { column: usize },
    #[error("{field} has no closing quote, it opens at column {column}")]
    Unterminated { field: &'static str, column: usize },
    #[error("expected {what} at column {column}")]
    Expected { what: &'static str, column: usize },
    #[error("{why} at column {column} of a JSON line")]
    Json { why: String, column: usize },
}

/// Reads a line in combined or common format.
pub fn parse_line(line: &[u8]) -> Result<Request, ParseError> {
    Cursor::open(line)?.request()
}

/// Reads a line as JSON if it begins with `{`, and otherwise in combined or common format.
pub fn parse_any(line: &[u8]) -> Result<Request, ParseError> {
    let cursor = Cursor::open(line)?;
    if cursor.peek() == Some(b'{') { cursor.json() } else { cursor.request() }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line and how far it has been read.
///
/// `at` only ever stands before or after an ASCII byte, so slicing there cannot split a character.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// Bytes before `text` in the line as given.
    skipped: usize,
}

impl<'a> Cursor<'a> {
    fn open(line: &'a [u8]) -> Result<Self, ParseError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_BYTES_MAX {
            return Err(ParseError::TooLong { bytes: line.len() });
        }
        let body = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        if body.is_empty() {
            return Err(ParseError::Empty);
        }
        let skipped = line.len() - body.len();
        let text = std::str::from_utf8(body).map_err(|error| ParseError::NotUtf8 { column: skipped + error.valid_up_to() + 1 })?;
        if let Some(at) = text.find('\0') {
            let column = skipped + at + 1;
            return Err(ParseError::Nul { column });
        }
        if let Some(at) = text.find('\n') {
            let column = skipped + at + 1;
            return Err(ParseError::LineFeed { column });
        }
        Ok(Cursor { text, at: 0, skipped })
    }

    fn json(self) -> Result<Request, ParseError> {
        serde_json::from_str(self.text).map_err(|error| {
            let why = error.to_string();
            let place = format!(" at line 1 column {}", error.column());
            ParseError::Json { why: why.strip_suffix(&place).unwrap_or(&why).to_owned(), column: self.skipped + error.column() }
        })
    }

    fn request(mut self) -> Result<Request, ParseError> {
        let host = self.word("a host")?;
        self.word("an identity or -")?;
        let user = self.user()?;
        let at = self.time()?;
        self.literal(b' ', "a space before the request line")?;
        let line = self.quoted("request line", "the request line in quotes")?;
        self.literal(b' ', "a space before the status")?;
        let status = self.digits(3, "a status of three digits", 0..=999)? as u16;
        self.literal(b' ', "a space after the status")?;
        let bytes = self.bytes()?;
        let (referrer, agent) = if self.at == self.text.len() {
            (Cow::Borrowed("-"), Cow::Borrowed("-"))
        } else {
            self.literal(b' ', "a space or the end of the line")?;
            let referrer = self.quoted("referrer", "the referrer in quotes")?;
            self.literal(b' ', "a space and the user agent")?;
            let agent = self.quoted("user agent", "the user agent in quotes")?;
            if self.at < self.text.len() {
                return Err(self.expected("the end of the line"));
            }
            (referrer, agent)
        };
        let (method, path, protocol) = match split_request_line(&line) {
            Some((method, target, protocol)) => (method.to_owned(), target.to_owned(), protocol.to_owned()),
            None => (String::new(), line.into_owned(), String::new()),
        };
        Ok(Request {
            at,
            host: unescape(host).into_owned(),
            user: user.into_owned(),
            method,
            path,
            protocol,
            status,
            bytes,
            referrer: referrer.into_owned(),
            agent: agent.into_owned(),
        })
    }

    /// A non-empty run of bytes up to a space, which is consumed.
    fn word(&mut self, what: &'static str) -> Result<&'a str, ParseError> {
        let rest = self.rest();
        match rest.bytes().position(|byte| byte == b' ') {
            Some(0) => Err(self.expected(what)),
            Some(length) => {
                self.at += length + 1;
                Ok(&rest[..length])
            }
            None if rest.is_empty() => Err(self.expected(what)),
            None => {
                self.at = self.text.len();
                Err(self.expected("a space"))
            }
        }
    }

    /// Everything before ` [`, which is consumed.
    fn user(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let rest = self.rest();
        let end = rest.as_bytes().windows(2).position(|pair| pair == b" [");
        match end {
            Some(0) => Err(self.expected("a user or -")),
            Some(end) => {
                self.at += end + 2;
                let user = &rest[..end];
                Ok(match user {
                    "\"\"" => Cow::Borrowed(""),
                    _ => unescape(user),
                })
            }
            None => Err(self.expected("a user and the time in brackets")),
        }
    }

    /// `17/May/2015:10:05:03 +0000]` as seconds since 1970 in UTC.
    fn time(&mut self) -> Result<u64, ParseError> {
        let start = self.at;
        let day = self.digits(2, "a day of two digits", 1..=31)?;
        self.literal(b'/', "/ after the day")?;
        let month = self.month()?;
        self.literal(b'/', "/ after the month")?;
        let year = self.digits(4, "a year from 1970 to 9999", 1970..=9999)?;
        let Some(days) = Date { year, month, day }.days() else {
            self.at = start;
            return Err(self.expected("a day that the month has"));
        };
        self.literal(b':', ": after the year")?;
        let hour = self.digits(2, "an hour from 00 to 23", 0..=23)?;
        self.literal(b':', ": after the hour")?;
        let minute = self.digits(2, "a minute from 00 to 59", 0..=59)?;
        self.literal(b':', ": after the minute")?;
        let second = self.digits(2, "a second from 00 to 60", 0..=60)?;
        self.literal(b' ', "a space before the time zone")?;
        let east = match self.peek() {
            Some(b'+') => true,
            Some(b'-') => false,
            _ => return Err(self.expected("a time zone such as +0000")),
        };
        self.at += 1;
        let zone_hours = self.digits(2, "hours of the time zone from 00 to 23", 0..=23)?;
        let zone_minutes = self.digits(2, "minutes of the time zone from 00 to 59", 0..=59)?;
        self.literal(b']', "] after the time")?;

        let local = days * 86_400 + hour * 3600 + minute * 60 + second;
        let offset = zone_hours * 3600 + zone_minutes * 60;
        if east {
            local.checked_sub(offset).ok_or_else(|| {
                self.at = start;
                self.expected("a time from 1970 on in UTC")
            })
        } else {
            Ok(local + offset)
        }
    }

    fn month(&mut self) -> Result<usize, ParseError> {
        let name = self.text.as_bytes().get(self.at..self.at + 3);
        let month =
            MONTHS.iter().position(|month| Some(month.as_bytes()) == name).ok_or_else(|| self.expected("a month from Jan to Dec"))?;
        self.at += 3;
        Ok(month)
    }

    /// A field in quotes, without them.
    fn quoted(&mut self, field: &'static str, what: &'static str) -> Result<Cow<'a, str>, ParseError> {
        let column = self.column();
        self.literal(b'"', what)?;
        let rest = self.rest();
        let stops = |&byte: &u8| byte == b'"' || byte == b'\\';
        let mut end = 0;
        while let Some(length) = rest.as_bytes()[end..].iter().position(stops) {
            let escaped = end > 0;
            end += length;
            if rest.as_bytes()[end] == b'"' {
                self.at += end + 1;
                let text = &rest[..end];
                return Ok(if escaped { unescape(text) } else { text.into() });
            }
            // A backslash at the end of the line has nothing to escape.
            end = (end + 2).min(rest.len());
        }
        Err(ParseError::Unterminated { field, column })
    }

    fn bytes(&mut self) -> Result<u64, ParseError> {
        let what = "a number of bytes or -";
        if self.peek() == Some(b'-') {
            self.at += 1;
            return Ok(0);
        }
        let rest = self.rest().as_bytes();
        let mut bytes = 0u64;
        let mut length = 0;
        while let Some(digit) = rest.get(length).filter(|byte| byte.is_ascii_digit()) {
            bytes = bytes
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
                .ok_or_else(|| self.expected("a number of bytes below 2^64"))?;
            length += 1;
        }
        if length == 0 {
            return Err(self.expected(what));
        }
        self.at += length;
        Ok(bytes)
    }

    /// A number of exactly that many digits.
    fn digits(&mut self, count: usize, what: &'static str, range: RangeInclusive<u64>) -> Result<u64, ParseError> {
        let digits = self.text.as_bytes().get(self.at..self.at + count);
        let number = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .map(|digits| digits.iter().fold(0, |n, &digit| n * 10 + u64::from(digit - b'0')))
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.expected(what))?;
        self.at += count;
        Ok(number)
    }

    fn literal(&mut self, byte: u8, what: &'static str) -> Result<(), ParseError> {
        if self.peek() != Some(byte) {
            return Err(self.expected(what));
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn column(&self) -> usize {
        self.skipped + self.at + 1
    }

    fn expected(&self, what: &'static str) -> ParseError {
        ParseError::Expected { what, column: self.column() }
    }
}

/// Replaces `\"` by `"` and `\\` by `\`; every other backslash stays.
fn unescape(field: &str) -> Cow<'_, str> {
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            text.push('\\');
            rest = after;
        } else if !rest.starts_with('"') {
            text.push('\\');
        }
        // A quote that was escaped is copied with the text that follows.
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Splits `METHOD TARGET PROTOCOL`: a token of RFC 9110, a target without spaces, a name and version
/// such as `HTTP/1.1`.
fn split_request_line(line: &str) -> Option<(&str, &str, &str)> {
    let (method, rest) = line.split_once(' ')?;
    let (target, protocol) = rest.split_once(' ')?;
    let (name, version) = protocol.split_once('/')?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let fits = !method.is_empty()
        && method.bytes().all(is_token)
        && !target.is_empty()
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    fits.then_some((method, target, protocol))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::generate::{Generator, GeneratorOptions, to_combined_line};
    use super::*;

    const COMBINED: &str =
        r#"203.0.113.7 - ada [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 200 512 "http://there.example/" "Lantern/9.1""#;

    fn with_request_line(line: &str) -> Request {
        let line = COMBINED.replace("GET /a?b=c HTTP/1.1", line);
        parse_line(line.as_bytes()).unwrap()
    }

    fn at(time: &str) -> Result<u64, String> {
        let line = COMBINED.replace("17/May/2015:10:05:03 +0000", time);
        match parse_line(line.as_bytes()) {
            Ok(request) => Ok(request.at),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_combined_line_fills_every_field() {
        let expected = Request {
            at: 1_431_857_103,
            host: "203.0.113.7".to_owned(),
            user: "ada".to_owned(),
            method: "GET".to_owned(),
            path: "/a?b=c".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            status: 200,
            bytes: 512,
            referrer: "http://there.example/".to_owned(),
            agent: "Lantern/9.1".to_owned(),
        };
        for line in [COMBINED.to_owned(), format!("{COMBINED}\n"), format!("{COMBINED}\r\n"), format!("\u{feff}{COMBINED}")] {
            assert_eq!(parse_line(line.as_bytes()).as_ref(), Ok(&expected));
            assert_eq!(parse_any(line.as_bytes()).as_ref(), Ok(&expected));
        }
        assert_eq!(to_combined_line(&expected), COMBINED);
    }

    #[test]
    fn a_common_line_has_neither_referrer_nor_agent() {
        let line = br#"::1 - - [01/Jan/1970:00:00:00 +0000] "HEAD / HTTP/1.0" 304 -"#;
        let request = parse_line(line).unwrap();
        assert_eq!((request.at, request.status, request.bytes), (0, 304, 0));
        assert_eq!((&*request.referrer, &*request.agent), ("-", "-"));
    }

    #[test]
    fn quotes_and_backslashes_are_unescaped_and_other_escapes_stay() {
        for (written, read) in [
            (r#"a \"b\" c"#, r#"a "b" c"#),
            (r"a\\", r"a\"),
            (r"\\x41", r"\x41"),
            (r"\xe4\n", r"\xe4\n"),
            (r#"\\\""#, r#"\""#),
            (r"\ä", r"\ä"),
            ("", ""),
        ] {
            let line = COMBINED.replace("Lantern/9.1", written);
            assert_eq!(parse_line(line.as_bytes()).unwrap().agent, read);
        }
    }

    #[test]
    fn a_user_may_have_spaces_quotes_or_no_letters() {
        for (written, read) in [("ada lovelace", "ada lovelace"), (r#"a\"b"#, r#"a"b"#), (r#""""#, ""), ("-", "-"), ("[x]", "[x]")] {
            let line = COMBINED.replace("ada", written);
            assert_eq!(parse_line(line.as_bytes()).unwrap().user, read);
        }
    }

    #[test]
    fn a_request_line_of_another_shape_is_kept_whole_without_a_method() {
        for line in [
            "-",
            "",
            "GET /",
            "GET  HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / HTTP",
            "GET / HTTP/",
            " / HTTP/1.1",
            "GET / HTTP/1.1 ",
            r"\x16\x03 / HTTP/1.1",
        ] {
            let request = with_request_line(line);
            assert_eq!((&*request.method, &*request.protocol), ("", ""), "{line}");
            assert_eq!(request.path, line);
        }
        for line in ["PRI * HTTP/2.0", "OPTIONS / RTSP/1.0", "M-SEARCH * HTTP/2"] {
            let request = with_request_line(line);
            let parts = [request.method, request.path, request.protocol];
            assert_eq!(parts.join(" "), line);
        }
    }

    #[test]
    fn times_are_read_as_utc_with_offsets_and_leap_years() {
        for (time, seconds) in [
            ("01/Jan/1970:01:00:00 +0100", 0),
            ("17/May/2015:12:05:03 +0200", 1_431_857_103),
            ("17/May/2015:04:35:03 -0530", 1_431_857_103),
            ("29/Feb/2016:00:00:00 +0000", 1_456_704_000),
            ("29/Feb/2000:23:59:59 +0000", 951_868_799),
            ("01/Mar/2100:00:00:00 +0000", 4_107_542_400),
            ("31/Dec/2016:23:59:60 +0000", 1_483_228_800),
            ("31/Dec/9999:23:59:59 +0000", 253_402_300_799),
        ] {
            assert_eq!(at(time), Ok(seconds), "{time}");
        }
    }

    #[test]
    fn a_wrong_time_is_named_with_its_column() {
        for (time, message) in [
            ("7/May/2015:10:05:03 +0000", "expected a day of two digits at column 20"),
            ("17-May-2015:10:05:03 +0000", "expected / after the day at column 22"),
            ("17/may/2015:10:05:03 +0000", "expected a month from Jan to Dec at column 23"),
            ("17/May/1969:10:05:03 +0000", "expected a year from 1970 to 9999 at column 27"),
            ("29/Feb/2015:10:05:03 +0000", "expected a day that the month has at column 20"),
            ("29/Feb/2100:10:05:03 +0000", "expected a day that the month has at column 20"),
            ("00/May/2015:10:05:03 +0000", "expected a day of two digits at column 20"),
            ("17/May/2015:24:05:03 +0000", "expected an hour from 00 to 23 at column 32"),
            ("17/May/2015:10:60:03 +0000", "expected a minute from 00 to 59 at column 35"),
            ("17/May/2015:10:05:61 +0000", "expected a second from 00 to 60 at column 38"),
            ("17/May/2015:10:05:03Z", "expected a space before the time zone at column 40"),
            ("17/May/2015:10:05:03 GMT", "expected a time zone such as +0000 at column 41"),
            ("17/May/2015:10:05:03 +00:00", "expected minutes of the time zone from 00 to 59 at column 44"),
            ("01/Jan/1970:00:30:00 +0100", "expected a time from 1970 on in UTC at column 20"),
        ] {
            assert_eq!(at(time), Err(message.to_owned()), "{time}");
        }
    }

    #[test]
    fn a_malformed_line_is_named_with_its_column() {
        let time = "[17/May/2015:10:05:03 +0000]";
        for (line, message) in [
            ("", "empty line"),
            ("\r\n", "empty line"),
            ("\u{feff}", "empty line"),
            (" - -", "expected a host at column 1"),
            ("\u{feff} - -", "expected a host at column 4"),
            ("h", "expected a space at column 2"),
            ("h ", "expected an identity or - at column 3"),
            ("h - ", "expected a user and the time in brackets at column 5"),
            ("h -  [", "expected a user or - at column 5"),
            ("h - - [", "expected a day of two digits at column 8"),
            (&format!("h - - {time}"), "expected a space before the request line at column 35"),
            (&format!("h - - {time} GET"), "expected the request line in quotes at column 36"),
            (&format!("h - - {time} \"GET / HTTP/1.1"), "request line has no closing quote, it opens at column 36"),
            (&format!("h - - {time} \"GET \\\""), "request line has no closing quote, it opens at column 36"),
            (&format!("h - - {time} \"\\"), "request line has no closing quote, it opens at column 36"),
            (&format!("h - - {time} \"-\""), "expected a space before the status at column 39"),
            (&format!("h - - {time} \"-\" 20 1"), "expected a status of three digits at column 40"),
            (&format!("h - - {time} \"-\" 2000 1"), "expected a space after the status at column 43"),
            (&format!("h - - {time} \"-\" 200 "), "expected a number of bytes or - at column 44"),
            (&format!("h - - {time} \"-\" 200 18446744073709551616"), "expected a number of bytes below 2^64 at column 44"),
            (&format!("h - - {time} \"-\" 200 1x"), "expected a space or the end of the line at column 45"),
            (&format!("h - - {time} \"-\" 200 - \"-\""), "expected a space and the user agent at column 49"),
            (&format!("h - - {time} \"-\" 200 - \"-\" -"), "expected the user agent in quotes at column 50"),
            (&format!("h - - {time} \"-\" 200 - \"-\" \"a"), "user agent has no closing quote, it opens at column 50"),
            (&format!("h - - {time} \"-\" 200 - \"-\" \"a\" x"), "expected the end of the line at column 53"),
            ("h - \0", "NUL byte at column 5: was the file cut off in a crash?"),
            ("\u{feff}h\nh", "line feed at column 5: one line holds one request"),
        ] {
            let error = parse_line(line.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, message, "{line:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_an_error() {
        let mut line = COMBINED.as_bytes().to_vec();
        line[56] = 0xe4;
        let error = parse_line(&line).unwrap_err();
        assert_eq!(error, ParseError::NotUtf8 { column: 57 });
        assert_eq!(error.to_string(), "invalid UTF-8 at column 57");
    }

    #[test]
    fn the_longest_line_is_read_and_one_byte_more_is_not() {
        let padding = LINE_BYTES_MAX - COMBINED.len();
        let longest = COMBINED.replace("Lantern", &format!("Lantern{}", "x".repeat(padding)));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        assert!(parse_line(format!("{longest}\r\n").as_bytes()).is_ok());
        let bytes = LINE_BYTES_MAX + 1;
        assert_eq!(parse_line(format!("x{longest}").as_bytes()), Err(ParseError::TooLong { bytes }));
    }

    #[test]
    fn json_lines_have_the_same_fields_and_defaults_for_optional_ones() {
        let request = parse_line(COMBINED.as_bytes()).unwrap();
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(parse_any(json.as_bytes()), Ok(request));

        let short = br#"{"at":1,"host":"h","path":"/","status":200,"bytes":0}"#;
        let filled = br#"h - - [01/Jan/1970:00:00:01 +0000] "GET / HTTP/1.1" 200 0 "-" "-""#;
        assert_eq!(parse_any(short), parse_line(filled));
        assert!(parse_line(short).is_err());
    }

    #[test]
    fn a_wrong_json_line_is_named_with_its_column() {
        for (line, message) in [
            (r#"{"at":1}"#, "missing field `host` at column 8 of a JSON line"),
            ("{", "EOF while parsing an object at column 1 of a JSON line"),
            ("\u{feff}{", "EOF while parsing an object at column 4 of a JSON line"),
            (r#"{"at":-1}"#, "invalid value: integer `-1`, expected u64 at column 8 of a JSON line"),
        ] {
            let error = parse_any(line.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, message, "{line:?}");
        }
        let unknown = parse_any(br#"{"size":1}"#).unwrap_err().to_string();
        assert!(unknown.starts_with("unknown field `size`"), "{unknown}");
    }

    #[test]
    fn generated_requests_survive_being_written_and_read() {
        for request in Generator::new(7, GeneratorOptions::default()).take(20_000) {
            let line = to_combined_line(&request);
            assert_eq!(parse_line(line.as_bytes()), Ok(request), "{line}");
        }
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let text = "[^\\x00-\\x1f\\x7f]{0,30}";
        let word = "[^\\x00-\\x20\\x7f\\ufeff]{1,30}";
        let request_line = prop_oneof![
            (Just("GET".to_owned()), word, Just("HTTP/1.1".to_owned())),
            text.prop_filter("it must not be METHOD TARGET PROTOCOL", |line| { split_request_line(line).is_none() }).prop_map(|line| (
                String::new(),
                line,
                String::new()
            )),
        ];
        let user = text.prop_filter("it must end before the time", |user| !user.contains(" ["));
        ((0..253_402_300_800u64, word, user, request_line), (0..1000u16, any::<u64>(), text, text)).prop_map(
            |((at, host, user, (method, path, protocol)), (status, bytes, referrer, agent))| Request {
                at,
                host,
                user,
                method,
                path,
                protocol,
                status,
                bytes,
                referrer,
                agent,
            },
        )
    }

    proptest! {
        #[test]
        fn every_request_survives_being_written_and_read(request in any_request()) {
            let line = to_combined_line(&request);
            prop_assert_eq!(parse_line(line.as_bytes()), Ok(request.clone()));
            let json = serde_json::to_vec(&request).unwrap();
            prop_assert_eq!(parse_any(&json), Ok(request));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_line(&line);
            let _ = parse_any(&line);
        }

        #[test]
        fn a_damaged_line_is_an_error_or_a_request_that_survives_being_written(
            from in 0..COMBINED.len(),
            length in 0..20usize,
            patch in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..6),
                "[\\\\\" \\[\\]/:+0-9ä-]{0,6}".prop_map(String::into_bytes),
            ],
        ) {
            let mut line = COMBINED.as_bytes().to_vec();
            let to = (from + length).min(line.len());
            line.splice(from..to, patch);
            let written_as_is = !line.iter().any(u8::is_ascii_control);
            if let (true, Ok(request)) = (written_as_is, parse_line(&line)) {
                let written = to_combined_line(&request);
                prop_assert_eq!(parse_line(written.as_bytes()), Ok(request));
            }
            let _ = parse_any(&line);
        }

        #[test]
        fn any_request_is_written_as_one_line(path in any::<String>(), host in any::<String>()) {
            let short = br#"{"at":1,"host":"h","path":"/","status":200,"bytes":0}"#;
            let request = Request { path, host, ..parse_any(short).unwrap() };
            let line = to_combined_line(&request);
            prop_assert!(!line.contains(|c: char| c.is_ascii_control()));
        }
    }
}
