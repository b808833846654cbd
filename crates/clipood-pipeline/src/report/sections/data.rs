//! What went into the run: classes, the map of features, trainings, and the account of images.

use super::super::bounds::{CLASSES, MAPPED, QUARANTINED};
use super::super::figures::bars::{self, Arrangement, Group};
use super::super::figures::curves::{self, Axes, Line};
use super::super::figures::{Figure, scatter};
use super::super::map::{self, EPOCHS, PERPLEXITY, SEED};
use super::super::page::{Block, Section};
use super::super::table::{Cell, Table};
use super::super::training::trainings;
use crate::error::Result;
use crate::job::Job;
use crate::plan::{DataRecord, Purpose, Skipped, data_records, origin};
use crate::planned::Planned;
use crate::quarantine::quarantine;

/// The images by dataset, and the classes of the shots.
pub fn classes(planned: &Planned) -> Section {
    let mut section = Section::new("data", "Data");
    let mut table = Table::new(&[
        ("dataset", "dataset"),
        ("role", "role"),
        ("used for", "purpose"),
        ("images", "images"),
        ("training images drawn", "train"),
    ]);
    for dataset in &planned.plan.datasets {
        table.rows.push(vec![
            Cell::text(&dataset.name),
            Cell::text(if dataset.is_id() { "ID" } else { "OOD" }),
            Cell::text(match dataset.purpose {
                Purpose::Test => "test",
                Purpose::Validation => "validation",
            }),
            Cell::Count(dataset.images() as u64),
            Cell::Count(dataset.train.len() as u64),
        ]);
    }
    section.table("datasets", "Datasets", &table);
    let classes = &planned.plan.classes;
    let mut repeated: Vec<&str> = classes.iter().map(String::as_str).collect();
    repeated.sort_unstable();
    let mut twice: Vec<&str> = repeated
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
        .collect();
    twice.dedup();
    if !twice.is_empty() {
        section.blocks.push(Block::Warning(format!(
            "{} class names are repeated ({}): their texts are the same, so their classes cannot be told apart.",
            twice.len(),
            twice.iter().take(5).copied().collect::<Vec<_>>().join(", ")
        )));
    }
    section
}

/// The distribution of ID test images over classes: known and predicted.
pub fn distribution(
    classes: &[String],
    confusion: &std::collections::BTreeMap<(i32, i32), u64>,
) -> Option<Figure> {
    let mut groups: Vec<Group> = classes
        .iter()
        .map(|name| Group {
            name: name.clone(),
            counts: vec![0, 0],
        })
        .collect();
    for ((label, pred), count) in confusion {
        for (class, series) in [(*label, 0), (*pred, 1)] {
            if let Some(group) = usize::try_from(class)
                .ok()
                .and_then(|class| groups.get_mut(class))
            {
                group.counts[series] += count;
            }
        }
    }
    // With many classes, those whose number of predictions is farthest from their number of images.
    let all = groups.len();
    if all > CLASSES {
        groups.sort_by_key(|group| std::cmp::Reverse(group.counts[0].abs_diff(group.counts[1])));
        groups.truncate(CLASSES);
    }
    let title = "ID test images by class";
    let cut = match all > CLASSES {
        true => format!(" The {CLASSES} of {all} classes whose two bars differ most."),
        false => String::new(),
    };
    let series = [
        "known to be of it".to_string(),
        "predicted to be of it".to_string(),
    ];
    Some(Figure::new(
        "class-distribution",
        title,
        format!("Counts of images.{cut}"),
        bars::draw(title, &series, &groups, Arrangement::Beside)?,
    ))
}

/// The t-SNE map of the features.
///
/// # Errors
/// Features that are missing or damaged.
pub fn map(job: &Job, planned: &Planned) -> Result<Section> {
    let mut section = Section::new("map", "Map of the features");
    let title = "t-SNE of the global image features";
    let figure = map::clouds(job, planned)?.and_then(|clouds| {
        let points: usize = clouds.iter().map(|cloud| cloud.points.len()).sum();
        let caption = format!(
            "{points} test images, about half of them ID (at most {MAPPED}; sample and first places drawn with seed {SEED}); normalised features, Barnes-Hut t-SNE, \
             perplexity {PERPLEXITY}, {EPOCHS} steps. Distances between groups mean little."
        );
        Some(Figure::new("t-sne", title, caption, scatter::draw(title, &clouds)?))
    });
    section.figure(figure, "There are too few images for a map.");
    Ok(section)
}

/// The training curves, and the words nearest to the learned vectors; `None` if nothing was trained.
///
/// # Errors
/// Prompt sets that are damaged.
pub fn training(job: &Job, planned: &Planned) -> Result<Option<Section>> {
    let trainings = trainings(job, planned)?;
    let mut section = Section::new("training", "Training of prompts");
    for problem in trainings.problems {
        section.blocks.push(Block::Missing(problem));
    }
    let figure = |id: &str, title: &str, y: &str, lines: &[Line]| {
        let axes = Axes {
            title,
            x: "epoch",
            y,
            ends: None,
        };
        let caption = "On the training views. Of each method the prompt set with the most shots and the first seed.";
        Some(Block::Figure(Figure::new(
            id,
            title,
            caption,
            curves::draw(axes, lines)?,
        )))
    };
    let curves: Vec<Block> = [
        figure("loss", "Training loss", "mean loss", &trainings.loss),
        figure(
            "training-accuracy",
            "Training accuracy",
            "percent",
            &trainings.accuracy,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !curves.is_empty() {
        section.blocks.push(Block::Row(curves));
    }
    for (prompt, vectors) in &trainings.words {
        let mut table = Table::new(&[("vector", "vector"), ("nearest tokens", "tokens")]);
        table.rows = vectors
            .iter()
            .enumerate()
            .map(|(number, tokens)| {
                vec![
                    Cell::Count(number as u64 + 1),
                    Cell::text(tokens.join(", ")),
                ]
            })
            .collect();
        let title = format!("Words nearest to the vectors of {prompt}");
        let block = Block::table(&format!("words-{prompt}"), &title, &table);
        section.folded(
            &title,
            vec![
                Block::Text(
                    "Euclidean distance to the token embeddings, as in the CoOp paper.".to_string(),
                ),
                block,
            ],
        );
    }
    Ok((!section.blocks.is_empty()).then_some(section))
}

/// Images in quarantine, files that were skipped, images in two sets, and where the images are from.
///
/// # Errors
/// Records that cannot be read.
pub fn account(job: &Job, planned: &Planned) -> Result<Section> {
    let mut section = Section::new("account", "Account of images");
    let unread = quarantine(job, &planned.plan, &planned.features)?;
    let mut table = Table::new(&[
        ("dataset", "dataset"),
        ("planned", "planned"),
        ("in quarantine", "quarantined"),
        ("used", "used"),
    ]);
    for dataset in &unread {
        let lost = dataset.rows().count();
        table.rows.push(vec![
            Cell::text(&dataset.dataset),
            Cell::Count(dataset.planned as u64),
            Cell::Count(lost as u64),
            Cell::Count(dataset.planned.saturating_sub(lost) as u64),
        ]);
    }
    section.table(
        "images",
        "Images planned, and images that could not be read",
        &table,
    );
    let rows: Vec<_> = unread.iter().flat_map(|dataset| dataset.rows()).collect();
    if rows.is_empty() {
        section.text("Every image could be read, as far as features have been extracted.");
    } else {
        let mut table = Table::new(&[
            ("image", "image_key"),
            ("reason", "error_kind"),
            ("message", "message"),
        ]);
        table.rows = rows
            .iter()
            .take(QUARANTINED)
            .map(|row| {
                vec![
                    Cell::text(&row.image_key),
                    Cell::text(&row.error_kind),
                    Cell::text(&row.message),
                ]
            })
            .collect();
        let title = match rows.len() > QUARANTINED {
            true => format!(
                "The first {QUARANTINED} of {} images in quarantine",
                rows.len()
            ),
            false => "Images in quarantine".to_string(),
        };
        section.folded(&title, vec![Block::table("quarantine", &title, &table)]);
    }
    skipped(&mut section, &data_records(job)?);
    if !planned.plan.overlaps.is_empty() {
        section.text("Images in two sets, or twice in one:");
        section.blocks.push(Block::List(
            planned
                .plan
                .overlaps
                .iter()
                .map(|overlap| overlap.line())
                .collect(),
        ));
    }
    if let Some(origin) = origin(job)? {
        section.text(format!("The images were {origin}."));
    }
    Ok(section)
}

/// The files and folders that were left out when the datasets were listed, by reason.
fn skipped(section: &mut Section, records: &[(String, Option<DataRecord>)]) {
    let mut table = Table::new(&[
        ("dataset", "dataset"),
        ("reason", "reason"),
        ("files or folders", "count"),
        ("the first of them", "examples"),
    ]);
    let mut unknown = Vec::new();
    for (dataset, record) in records {
        let Some(all) = record.as_ref().and_then(|record| record.skipped.as_ref()) else {
            unknown.push(dataset.as_str());
            continue;
        };
        table
            .rows
            .extend(all.iter().map(|skipped| skipped_row(dataset, skipped)));
    }
    match table.rows.is_empty() {
        false => section.table("skipped", "Files and folders that planning skipped", &table),
        true if unknown.is_empty() => section.text("Planning skipped no file and no folder."),
        true => {}
    }
    if !unknown.is_empty() {
        section.blocks.push(Block::Missing(format!(
            "An earlier build has planned {} and did not record which files it skipped.",
            unknown.join(", ")
        )));
    }
}

fn skipped_row(dataset: &str, skipped: &Skipped) -> Vec<Cell> {
    vec![
        Cell::text(dataset),
        Cell::text(&skipped.reason),
        Cell::Count(skipped.count as u64),
        Cell::text(skipped.examples.join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page::Page;

    #[test]
    fn skipped_files_are_counted_or_said_to_be_unknown() {
        let record = |skipped| DataRecord {
            root: "/data/id".to_string(),
            files: 1,
            sizes: String::new(),
            times: String::new(),
            listed: 0,
            skipped,
        };
        let html = |records: &[(String, Option<DataRecord>)]| {
            let mut section = Section::new("account", "Account");
            skipped(&mut section, records);
            let page = Page {
                sections: vec![section],
                ..Page::default()
            };
            page.html().unwrap()
        };
        let of = |name: &str, record| (name.to_string(), record);
        let none = html(&[of("id", Some(record(Some(Vec::new()))))]);
        assert!(none.contains("Planning skipped no file"), "{none}");
        let two = Skipped {
            reason: "hidden or of the system".to_string(),
            count: 5,
            examples: vec!["a/.x".to_string(), "b/.x".to_string()],
        };
        let some = html(&[
            of("id", Some(record(Some(vec![two])))),
            of("old", Some(record(None))),
        ]);
        for part in [
            "hidden or of the system",
            "a/.x, b/.x",
            "has planned old and",
        ] {
            assert!(some.contains(part), "no `{part}` in {some}");
        }
        assert!(!some.contains("skipped no file"));
    }

    #[test]
    fn the_classes_with_the_largest_gaps_are_drawn() {
        let classes: Vec<String> = (0..100).map(|class| format!("class {class:02}")).collect();
        let confusion = (0..100)
            .map(|class| ((class, if class == 7 { 8 } else { class }), 10))
            .collect();
        let figure = distribution(&classes, &confusion).unwrap();
        assert!(
            figure.svg.contains("class 07, predicted to be of it: 0"),
            "{}",
            figure.svg
        );
        assert!(figure.svg.contains("class 08, predicted to be of it: 20"));
        assert!(figure.caption.contains("30 of 100"));
    }
}
