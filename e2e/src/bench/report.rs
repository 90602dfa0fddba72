//! Rows of figures, each beside what the bare client or the bare pipeline made of the same work in the same run.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub row: String,
    /// Unit of the value.
    pub unit: &'static str,
    /// Median over the repeats.
    pub value: f64,
    /// The same figure of the bare client, where it has one.
    pub relay: Option<f64>,
    /// The same figure of the bare pipeline, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<f64>,
    /// Value divided by that of the bare pipeline, or else by that of the bare client, or what the row says.
    pub ratio: Option<f64>,
    /// The most that the value may be, where that was promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Whether it is not more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
}

impl Row {
    /// A figure with its yardstick.
    pub fn new(row: impl Into<String>, unit: &'static str, value: f64, relay: Option<f64>) -> Self {
        let ratio = relay.map(|relay| value / relay);
        Self { row: row.into(), unit, value, relay, pipeline: None, ratio, at_most: None, held: None }
    }

    /// A figure whose yardstick is the bare pipeline.
    pub fn beside_pipeline(row: impl Into<String>, unit: &'static str, value: f64, pipeline: f64) -> Self {
        Self { pipeline: Some(pipeline), ratio: Some(value / pipeline), ..Self::new(row, unit, value, None) }
    }

    /// The same with the most that was promised beside it.
    #[must_use]
    pub fn at_most(self, at_most: f64) -> Self {
        Self { at_most: Some(at_most), held: Some(self.value <= at_most), ..self }
    }
}

/// Writes rows as JSON, one object a line.
pub fn write_json(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Writes rows as a table for people.
pub fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let heads = ["UNIT", "VALUE", "RELAY", "PIPELINE", "RATIO", "AT MOST", "HELD"];
    let [unit, value, relay, pipeline, ratio, at_most, held] = heads;
    writeln!(out, "{:<48} {unit:>14} {value:>12} {relay:>12} {pipeline:>12} {ratio:>7} {at_most:>9} {held:>5}", "ROW")?;
    for row in rows {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}"));
        let (relay, pipeline) = (figure(row.relay), figure(row.pipeline));
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let at_most = row.at_most.map_or_else(|| "-".to_owned(), |at_most| at_most.to_string());
        let held = row.held.map_or("-", |held| if held { "yes" } else { "NO" });
        writeln!(
            out,
            "{:<48} {:>14} {:>12.2} {relay:>12} {pipeline:>12} {ratio:>7} {at_most:>9} {held:>5}",
            row.row, row.unit, row.value
        )?;
    }
    Ok(())
}

/// The middle value; the lower of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The value that `percent` of the durations do not exceed, in milliseconds.
pub fn percentile_milliseconds(durations: &mut [Duration], percent: usize) -> f64 {
    durations.sort_unstable();
    let rank = (durations.len() * percent).div_ceil(100).saturating_sub(1);
    durations.get(rank).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_values_that_occurred() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0]) - 1.0).abs() < f64::EPSILON);
        let mut durations: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert!((percentile_milliseconds(&mut durations, 50) - 50.0).abs() < 1e-9);
        assert!((percentile_milliseconds(&mut durations, 99) - 99.0).abs() < 1e-9);
    }

    #[test]
    fn a_row_is_one_json_object_with_the_agreed_keys() {
        let mut out = Vec::new();
        write_json(&mut out, &[Row::new("one_to_one", "deliveries/s", 5.0, Some(10.0))]).unwrap();
        let expected = r#"{"row":"one_to_one","unit":"deliveries/s","value":5.0,"relay":10.0,"ratio":0.5}"#;
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }

    #[test]
    fn a_promise_is_held_up_to_its_bound() {
        let row = |value| Row::new("start", "s", value, None).at_most(30.0);
        assert_eq!((row(30.0).held, row(30.1).held), (Some(true), Some(false)));
        let mut out = Vec::new();
        write_table(&mut out, &[row(31.5)]).unwrap();
        let table = String::from_utf8(out).unwrap();
        let cells: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["start", "s", "31.50", "-", "-", "-", "30", "NO"]);
    }
}
