//! JSON: arrays of numbers, tables by rows or by columns, and JSON Lines.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clipood_core::text_file::decode_text;
use serde_json::{Map, Value};

use super::choose::{Cell, Column, chosen};

/// The wanted column, or the only one of numbers. With `lines` (or if several values follow one another) every value is a
/// row.
pub fn column(path: &Path, bytes: Vec<u8>, lines: bool, wanted: Option<&str>) -> Result<Vec<f64>> {
    let given = || path.display().to_string();
    let text = decode_text(bytes, &path.display().to_string())?;
    let text = with_quoted_specials(&text);
    let values = serde_json::Deserializer::from_str(&text).into_iter();
    let mut values: Vec<Value> = values.collect::<Result<_, _>>().with_context(given)?;
    let rows = match (values.pop(), lines) {
        (None, _) => bail!("{}: expected JSON, found nothing", path.display()),
        (Some(Value::Array(rows)), false) if values.is_empty() => rows,
        (Some(Value::Object(object)), false) if values.is_empty() => {
            return chosen(path, of_object(&object).with_context(given)?, wanted);
        }
        (Some(last), _) => {
            values.push(last);
            values
        }
    };
    chosen(path, by_rows(&rows).with_context(given)?, wanted)
}

/// `NaN`, `Infinity` and `-Infinity`, which Python writes although JSON has none of them, as texts.
fn with_quoted_specials(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    let mut rest = text;
    let (mut quoted, mut escaped) = (false, false);
    while let Some(first) = rest.chars().next() {
        let special = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|special| !quoted && rest.starts_with(special));
        if let Some(special) = special {
            all.extend(["\"", special, "\""]);
            rest = &rest[special.len()..];
            continue;
        }
        quoted ^= first == '"' && !escaped;
        escaped = quoted && first == '\\' && !escaped;
        all.push(first);
        rest = &rest[first.len_utf8()..];
    }
    all
}

/// A table from its rows: numbers, arrays of one number, or objects with the columns as keys.
fn by_rows(rows: &[Value]) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    let is_table = rows.iter().any(Value::is_object);
    if !is_table {
        let mut only = named("1");
        only.is_list = true;
        for (row, value) in rows.iter().enumerate() {
            let value = match value {
                Value::Array(inner) if inner.len() == 1 => &inner[0],
                value => value,
            };
            push(&mut only, Some(value), || format!("row {row}"));
        }
        return Ok(vec![only]);
    }
    for row in rows {
        for key in row.as_object().into_iter().flat_map(Map::keys) {
            if !columns.iter().any(|column| column.name == *key) {
                columns.push(named(key));
            }
        }
    }
    for (row, value) in rows.iter().enumerate() {
        let Some(object) = value.as_object() else {
            bail!("row {row}: expected an object as in other rows, found {value}");
        };
        for column in &mut columns {
            let value = object.get(&column.name);
            push(column, value, || format!("row {row}"));
        }
    }
    Ok(columns)
}

/// A table by columns, each an array or an object from row names to values, as pandas writes data frames; or one such
/// object, as it writes a series.
fn of_object(object: &Map<String, Value>) -> Result<Vec<Column>> {
    let is_row_number = |key: &String| key.parse::<u64>().is_ok();
    let numbered = !object.is_empty() && object.keys().all(is_row_number);
    let inner: Option<Vec<&Map<String, Value>>> = object.values().map(Value::as_object).collect();
    // orient="split" and orient="table".
    if let (Some(Value::Array(names)), Some(Value::Array(data))) =
        (object.get("columns"), object.get("data"))
    {
        return split(names, data);
    }
    if let (Some(schema), Some(Value::Array(data))) = (object.get("schema"), object.get("data")) {
        let mut columns = by_rows(data)?;
        let index = schema["primaryKey"].as_array().into_iter().flatten();
        let index: Vec<&str> = index.filter_map(Value::as_str).collect();
        for column in &mut columns {
            column.is_index = index.contains(&column.name.as_str());
        }
        return Ok(columns);
    }
    if let Some(columns) = inner
        && !object.is_empty()
    {
        // orient="index": rows by number, unless the inner keys are row numbers as well.
        if numbered && !columns.iter().flat_map(|c| c.keys()).all(is_row_number) {
            let rows: Vec<Value> = object.values().cloned().collect();
            return by_rows(&rows);
        }
        let table = object.keys().zip(columns).map(|(name, rows)| {
            let mut column = named(name);
            for (row, value) in rows {
                push(&mut column, Some(value), || format!("row `{row}`"));
            }
            column
        });
        return Ok(table.collect());
    }
    if object.values().any(Value::is_array) {
        let mut table = Vec::new();
        // A value beside the columns is no column.
        let arrays = object.iter().filter_map(|(n, v)| Some((n, v.as_array()?)));
        for (name, values) in arrays {
            let mut column = named(name);
            for (row, value) in values.iter().enumerate() {
                push(&mut column, Some(value), || format!("row {row}"));
            }
            table.push(column);
        }
        return Ok(table);
    }
    if numbered {
        let mut only = named("1");
        only.is_list = true;
        for (row, value) in object {
            push(&mut only, Some(value), || format!("row `{row}`"));
        }
        return Ok(vec![only]);
    }
    bail!(
        "found an object of single values, expected an array of numbers, or a table by rows or columns"
    )
}

fn split(names: &[Value], data: &[Value]) -> Result<Vec<Column>> {
    let name = |name: &Value| name.as_str().map_or(name.to_string(), str::to_owned);
    let mut columns: Vec<Column> = names.iter().map(|n| named(&name(n))).collect();
    for (row, values) in data.iter().enumerate() {
        let values = values.as_array().filter(|v| v.len() == columns.len());
        let Some(values) = values else {
            bail!(
                "data, row {row}: expected an array of {} values",
                columns.len()
            );
        };
        for (column, value) in columns.iter_mut().zip(values) {
            push(column, Some(value), || format!("row {row}"));
        }
    }
    Ok(columns)
}

fn named(name: &str) -> Column {
    Column::new(name, false)
}

fn push(column: &mut Column, value: Option<&Value>, place: impl Fn() -> String) {
    let shown;
    let cell = match value {
        None => Cell::Missing(""),
        Some(Value::Null) => Cell::Missing("null"),
        Some(Value::Number(number)) => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "nan" => Cell::Number(f64::NAN),
            "inf" | "+inf" | "infinity" | "+infinity" => Cell::Number(f64::INFINITY),
            "-inf" | "-infinity" => Cell::Number(f64::NEG_INFINITY),
            "" | "na" | "null" | "none" => Cell::Missing(text),
            _ => Cell::Text(text),
        },
        Some(other) => {
            shown = other.to_string();
            Cell::Text(&shown)
        }
    };
    column.push(cell, place);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(text: &str, lines: bool, wanted: Option<&str>) -> Result<Vec<f64>> {
        column(Path::new("t.json"), text.as_bytes().to_vec(), lines, wanted)
    }

    #[test]
    fn arrays_and_tables_in_any_orientation_are_read() {
        for text in [
            "[0.5, Infinity]",
            "\u{feff}[[0.5], [\"inf\"]]",
            r#"[{"image": "NaN", "score": 0.5}, {"image": "b\"", "score": Infinity}]"#,
            r#"{"score": [0.5, Infinity], "image": ["a", "b"]}"#,
            r#"{"score": {"0": 0.5, "1": Infinity}}"#,
            r#"{"score": {"a": 0.5, "b": Infinity}, "image": {"a": "x", "b": "y"}}"#,
            r#"{"0": 0.5, "1": Infinity}"#,
            r#"{"0": {"score": 0.5}, "1": {"score": Infinity}}"#,
            r#"{"columns": ["score"], "index": [0, 1], "data": [[0.5], [Infinity]]}"#,
            r#"{"schema": {"primaryKey": ["index"]}, "data": [{"index": 0, "score": 0.5},
                {"index": 1, "score": Infinity}]}"#,
            "{\"score\": 0.5}\n{\"score\": Infinity}\n",
            "0.5\nInfinity\n",
        ] {
            let found = scores(text, false, None).unwrap_or_else(|e| panic!("{text}: {e:#}"));
            assert_eq!(found, [0.5, f64::INFINITY], "{text}");
        }
        assert_eq!(scores("{\"score\": 0.5}\n", true, None).unwrap(), [0.5]);
        assert_eq!(
            scores(r#"{"a": [1], "b": [2]}"#, false, Some("b")).unwrap(),
            [2.0]
        );
    }

    #[test]
    fn what_is_no_score_is_named_with_its_row() {
        for (text, words) in [
            ("[1, null]", &["row 1", "missing (`null`)"][..]),
            ("[1, NaN]", &["row 1", "NaN"]),
            ("[1, \"two\"]", &["row 1", "`two`"]),
            ("[[1, 2]]", &["row 0", "[1,2]"]),
            ("{\"x\": 1}", &["array of numbers"]),
            (r#"[{"s": 1}, {}]"#, &["`s`", "row 1", "missing"]),
            (r#"[{"s": 1}, 2]"#, &["row 1", "object"]),
            (r#"{"s": {"a": 1, "b": NaN}}"#, &["`s`", "row `b`", "NaN"]),
            (r#"{"s": [1], "t": [2]}"#, &["--column", "s, t"]),
            ("[1, 2", &["t.json"]),
            ("", &["nothing"]),
        ] {
            let error = format!("{:#}", scores(text, false, None).unwrap_err());
            for word in words {
                assert!(error.contains(word), "{text}: no {word} in: {error}");
            }
        }
    }
}
