//! Tables in the style of `kubectl get`: pure text.

use serde_json::Value;

/// Spaces between two columns.
const GAP: usize = 3;

/// A column: its title and how its text is read from a row.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Title, in capitals.
    pub(crate) title: &'static str,
    /// Reads the cell of a row.
    pub(crate) cell: fn(&Value) -> String,
}

/// Renders rows under their titles. Ends with a newline.
pub(crate) fn render(columns: &[Column], rows: &[Value]) -> String {
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()).collect();
    align(titles, cells)
}

/// Aligns rows of cells under their titles; every row has as many cells as there are titles. Ends with a newline.
pub(crate) fn align(titles: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut lines = vec![titles];
    lines.extend(rows);
    let columns = lines[0].len();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let width = width + GAP;
            padded = format!("{padded}{cell:width$}");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

/// A JSON value as the text of a cell: `-` where there is none, lists joined by commas.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Text without control characters: what others sent must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "NAME", cell: |row| text(&row["name"]) },
        Column { title: "TYPES", cell: |row| text(&row["types"]) },
    ];

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = [json!({"name": "a-long-name", "types": ["order.*", "refund.**"]}), json!({"name": "b"})];
        let expected = "NAME          TYPES\na-long-name   order.*,refund.**\nb             -\n";
        assert_eq!(render(COLUMNS, &rows), expected);
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(text(&json!("a\u{1b}[31mb\n")), "a\u{fffd}[31mb\u{fffd}");
    }
}
