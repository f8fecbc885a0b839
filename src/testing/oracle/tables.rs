//! Tables for the SQL engine: CSV files with typed columns.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A value in a row of a table.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// An integer.
    Integer(i128),
    /// Text: a string, or a date or decimal as SQL reads it (`2015-07-15`, `12.50`).
    Text(&'a str),
    /// Nothing.
    Null,
}

macro_rules! integer_cell {
    ($($integer:ty),+) => {$(
        impl From<$integer> for Cell<'_> {
            fn from(integer: $integer) -> Self {
                Self::Integer(integer.into())
            }
        }
    )+};
}
integer_cell!(u8, u16, u32, u64, i8, i16, i32, i64);

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

/// A table as the SQL engine is told of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Described {
    name: String,
    columns: Vec<(String, String)>,
    file: PathBuf,
}

/// The tables of one check, written to files in a directory.
pub struct Tables {
    dir: PathBuf,
    open: Vec<(Described, BufWriter<File>)>,
}

impl Tables {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: Vec::new() }
    }

    /// Adds an empty table. Columns are `(name, SQL type)`.
    pub fn table(&mut self, name: &str, columns: &[(&str, &str)]) -> io::Result<()> {
        let columns = columns.iter().map(|(name, kind)| (name.to_string(), kind.to_string())).collect();
        let described = Described { name: name.to_owned(), columns, file: self.dir.join(format!("{name}.csv")) };
        let file = BufWriter::with_capacity(1 << 20, File::create(&described.file)?);
        self.open.push((described, file));
        Ok(())
    }

    /// Adds a row to a table.
    ///
    /// # Panics
    /// If there is no such table, or it has another number of columns.
    pub fn row(&mut self, table: &str, cells: &[Cell<'_>]) -> io::Result<()> {
        let found = self.open.iter_mut().find(|(described, _)| described.name == table);
        let (described, file) = found.unwrap_or_else(|| panic!("there is no table `{table}`"));
        assert_eq!(cells.len(), described.columns.len(), "table `{table}` has other columns");
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                file.write_all(b",")?;
            }
            match cell {
                Cell::Integer(integer) => write!(file, "{integer}")?,
                Cell::Text(text) => write!(file, "\"{}\"", text.replace('"', "\"\""))?,
                Cell::Null => {}
            }
        }
        file.write_all(b"\n")
    }

    pub(super) fn finish(self) -> io::Result<Vec<Described>> {
        self.open
            .into_iter()
            .map(|(described, file)| {
                file.into_inner().map_err(|error| error.into_error())?;
                Ok(described)
            })
            .collect()
    }
}
