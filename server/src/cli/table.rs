//! Plain tables, and times for people.

use std::io::{self, Write};

/// Prints rows under a head, columns aligned.
pub(crate) fn print(head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = io::stdout().lock();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A time as UTC to the second, or a dash.
pub(crate) fn time(nanoseconds: Option<i64>) -> String {
    nanoseconds
        .and_then(|nanoseconds| jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).ok())
        .map_or("-".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
