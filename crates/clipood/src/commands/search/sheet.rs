//! [`Gallery`]: the hits of a search as a page with their images.

use std::collections::BTreeSet;

use anyhow::Result;
use clipood_core::{counted, shown, unstored};
use clipood_data::Source;
use clipood_pipeline::{Sheet, SheetGroup, SheetImage};

use super::super::args::DataArgs;
use super::sources::{Names, sources_of};
use super::{IMAGE, Query};

/// The hits that a page shows, query by query.
pub struct Gallery {
    /// Number of queries.
    queries: usize,
    /// Images so far, with those of queries.
    images: usize,
    groups: Vec<Found>,
}

/// The first hits of a query.
struct Found {
    kind: &'static str,
    query: String,
    /// Names and cosines, the nearest first.
    hits: Vec<(String, f64)>,
    /// Hits that are not among them.
    left_out: usize,
}

impl Gallery {
    /// A page for the hits of so many queries.
    pub fn new(queries: usize) -> Self {
        Self {
            queries,
            images: 0,
            groups: Vec::new(),
        }
    }

    /// Adds a query with its hits. All queries show equally many images, with that of the query; what goes beyond
    /// [`Sheet::MOST`] is left out.
    pub fn add(&mut self, query: &Query, hits: &[(&str, f64)]) {
        let own = usize::from(query.kind == IMAGE);
        // Queries without a hit have a heading on the page, too.
        if self.images + own >= Sheet::MOST || self.groups.len() >= Sheet::MOST {
            return;
        }
        let share = (Sheet::MOST / self.queries.max(1)).saturating_sub(own);
        let share = share.max(1);
        self.images += own + hits.len().min(share);
        let kept = hits.iter().take(share);
        self.groups.push(Found {
            kind: query.kind,
            query: query.name.clone(),
            hits: kept
                .map(|(name, cosine)| ((*name).to_owned(), *cosine))
                .collect(),
            left_out: hits.len().saturating_sub(share),
        });
    }

    /// The page. `place` says where was searched, `weights` is the hash of the model's weights.
    ///
    /// # Errors
    /// None for the templates of the pipeline.
    pub fn html(
        &self,
        names: Names,
        data: &DataArgs,
        place: &str,
        weights: &str,
    ) -> Result<String> {
        let hits = self.groups.iter().flat_map(|group| &group.hits);
        let images: BTreeSet<&str> = hits.map(|(name, _)| name.as_str()).collect();
        let sources = sources_of(names, &images, data);
        let source = |name: &str| match sources.get(name) {
            Some(source) => source.clone(),
            None => Err("was not looked for".to_owned()),
        };
        let groups = self.groups.iter().map(|found| {
            let mut images = Vec::new();
            if found.kind == IMAGE {
                images.push(SheetImage {
                    source: Ok(Source::found(&unstored(&found.query))),
                    name: shown(&found.query),
                    heading: "the query".to_owned(),
                    lines: Vec::new(),
                });
            }
            for (rank, (name, cosine)) in (1..).zip(&found.hits) {
                let dataset = match names {
                    Names::Keys => name.split('/').next(),
                    Names::Paths | Names::None => None,
                };
                images.push(SheetImage {
                    source: source(name),
                    name: shown(name),
                    heading: format!("{rank} · {cosine:.4}"),
                    lines: dataset.map(str::to_owned).into_iter().collect(),
                });
            }
            SheetGroup {
                title: shown(&found.query),
                text: match found.hits.is_empty() {
                    true => "Nothing fits the filter.".to_owned(),
                    false => String::new(),
                },
                images,
                left_out: found.left_out,
                table: None,
            }
        });
        let more = self.queries.saturating_sub(self.groups.len());
        let mut verdict = match self.queries {
            1 => "The images nearest to one query.".to_owned(),
            queries => format!("The images nearest to each of {queries} queries."),
        };
        if more > 0 {
            let queries = counted(more, "query is", "queries are");
            verdict += &format!(" The last {queries} not on this page.");
        }
        let sheet = Sheet {
            title: "Images found".to_owned(),
            subtitle: format!(
                "Searched: {place}, with the weights {weights}. Below each image its rank and the cosine of its features with \
                 those of the query."
            ),
            verdict,
            groups: groups.collect(),
        };
        Ok(sheet.html()?)
    }
}
