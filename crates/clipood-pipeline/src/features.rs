//! Reading the features of units from the store.

use bytes::Bytes;
use half::f16;

use crate::error::{PipelineError, Result};
use crate::extract::{ExtractUnit, GLOBAL, LOCAL, ledger_unit, part_path};
use crate::feature_checks::check_rows;
use crate::job::Job;
use crate::tables::{QuarantineRow, read_footer, read_global, read_local};

/// Features of one unit, in its row order; images in quarantine have no row.
#[derive(Debug, Clone, Default)]
pub struct FeatureBlock {
    /// Image key of each row.
    pub keys: Vec<String>,
    /// View of each row.
    pub views: Vec<i16>,
    /// `[rows, D]`, before normalisation.
    pub global: Vec<f32>,
    /// `[rows, positions, D]`, before normalisation; empty unless asked for.
    pub local: Vec<f32>,
    /// Images of the unit that could not be read.
    pub quarantined: Vec<QuarantineRow>,
}

/// Reads the features of a unit; with `local` also its patch features.
///
/// # Errors
/// A part that is missing or damaged, or whose sizes differ from the model's; features that cannot be compared, with
/// their image.
pub fn read_features(job: &Job, unit: &ExtractUnit, local: bool) -> Result<FeatureBlock> {
    let config = &job.experiment.model.config;
    let ledger = &job.places.features.ledger;
    let key = ledger_unit(job, unit);
    // The bytes are compared with the commit record while they are decoded.
    let path = part_path(GLOBAL, unit);
    let name = ledger.store().display(&path);
    let decode = |bytes: Bytes| -> Result<_> {
        let quarantined = read_footer(&bytes, &name)?.meta.quarantined;
        Ok((quarantined, read_global(bytes, &name)?))
    };
    let (quarantined, global) = ledger.read_part_with(GLOBAL, &key, &path, decode)??;
    if global.dim != config.embed_dim {
        return Err(PipelineError::Inconsistent(format!(
            "{name}: features of width {}, the model has {}",
            global.dim, config.embed_dim
        )));
    }
    let mut block = FeatureBlock {
        keys: global.keys,
        views: global.views,
        global: global.values,
        local: Vec::new(),
        quarantined,
    };
    check_rows(&block.global, config.embed_dim, |row| {
        format!("{path}: image {}", block.keys[row])
    })?;
    if local {
        let path = part_path(LOCAL, unit);
        let name = ledger.store().display(&path);
        let decode = |bytes: Bytes| -> Result<Vec<f32>> {
            let table = read_local(bytes, &name)?;
            if table.keys != block.keys
                || table.views != block.views
                || table.patches != config.image.positions()
            {
                return Err(PipelineError::Inconsistent(format!(
                    "{name}: its rows or patches are not those of the global features"
                )));
            }
            Ok(table.values.into_iter().map(f16::to_f32).collect())
        };
        block.local = ledger.read_part_with(LOCAL, &key, &path, decode)??;
    }
    Ok(block)
}

/// Divides every row of `width` values by its length.
pub fn normalise_rows(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|v| *v /= norm);
        }
    }
}

/// The images that the part of each unit lists as unreadable. Only parts whose commit record counts some are opened.
///
/// # Errors
/// A record or part that cannot be read.
pub fn read_quarantine_of(job: &Job, units: &[ExtractUnit]) -> Result<Vec<Vec<QuarantineRow>>> {
    let ledger = &job.places.features.ledger;
    let keys: Vec<_> = units.iter().map(|unit| ledger_unit(job, unit)).collect();
    let mut all = vec![Vec::new(); units.len()];
    for (((unit, key), record), rows) in units
        .iter()
        .zip(&keys)
        .zip(ledger.records_of(GLOBAL, &keys)?)
        .zip(&mut all)
    {
        if record.is_none_or(|record| record.quarantined == 0) {
            continue;
        }
        let path = part_path(GLOBAL, unit);
        let bytes = ledger.read_part(GLOBAL, key, &path)?;
        *rows = read_footer(&bytes, &path)?.meta.quarantined;
    }
    Ok(all)
}
