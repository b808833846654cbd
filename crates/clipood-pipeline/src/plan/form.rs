//! How the table of the plan writes where an image lies.

use clipood_data::{At, PlaneSize};

/// What the `form` of a row of a Parquet file begins with.
const ROW: &str = "row:";
/// What the `form` of pixels without a header begins with.
const PLANES: &str = "planes:";

/// The columns `offset`, `length` and `form` of an image.
pub(super) fn columns(at: At) -> (Option<u64>, Option<u64>, Option<String>) {
    match at {
        At::Whole => (None, None, None),
        At::Bytes(range) => {
            let length = range.end.saturating_sub(range.start);
            (Some(range.start), Some(length), None)
        }
        At::Row { column, row } => (Some(row), None, Some(format!("{ROW}{column}"))),
        At::Planes { start, size } => {
            let form = format!("{PLANES}{}x{}", size.width, size.height);
            (Some(start), None, Some(form))
        }
    }
}

/// The place that a `form` and an `offset` describe; `None` for a form of a later version.
pub(super) fn at(form: &str, offset: u64) -> Option<At> {
    if let Some(column) = form.strip_prefix(ROW) {
        let column = column.to_string();
        return Some(At::Row {
            column,
            row: offset,
        });
    }
    let (width, height) = form.strip_prefix(PLANES)?.split_once('x')?;
    let size = PlaneSize {
        width: width.parse().ok()?,
        height: height.parse().ok()?,
    };
    Some(At::Planes {
        start: offset,
        size,
    })
}
