//! The evaluation views of images, again and again.

use std::collections::BTreeMap;

use clipood_data::{Roots, Source, read};

use crate::encode::{Unreadable, eval_view_of, in_order};
use crate::error::{PipelineError, Result};

/// Bytes of views that are kept in memory, if all of them fit.
const KEPT_BYTES: usize = 1 << 30;

/// The views of a list of images: from memory where there is room, else read and decoded anew.
pub(super) struct Views<'a> {
    images: &'a [Source],
    side: u32,
    /// Views `[side, side, 3]` by image; none if there is no room for all.
    kept: Option<Vec<Vec<u8>>>,
}

impl<'a> Views<'a> {
    /// Reads every image once, to know which cannot be read; `done` is called after each.
    ///
    /// # Errors
    /// None for images that cannot be read, which are returned.
    pub fn open(
        images: &'a [Source],
        side: u32,
        mut done: impl FnMut(),
    ) -> Result<(Self, BTreeMap<u32, Unreadable>)> {
        let bytes = (side as usize).pow(2) * 3 * images.len();
        let mut views = Self {
            images,
            side,
            kept: None,
        };
        let mut kept = (bytes <= KEPT_BYTES).then(Vec::new);
        let mut unreadable = BTreeMap::new();
        let mut image = 0;
        let all: Vec<u32> = (0..images.len() as u32).collect();
        views.decode(&all, |view| {
            let view = view.unwrap_or_else(|reason| {
                unreadable.insert(image, reason);
                Vec::new()
            });
            if let Some(kept) = &mut kept {
                kept.push(view);
            }
            image += 1;
            done();
            Ok(())
        })?;
        views.kept = kept;
        Ok((views, unreadable))
    }

    /// Calls `take` with the view of each image of `order`.
    ///
    /// # Errors
    /// An image that could be read before and cannot now; the first of `take`.
    pub fn each(&self, order: &[u32], mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if let Some(kept) = &self.kept {
            let mut order = order.iter();
            return order.try_for_each(|image| take(&kept[*image as usize]));
        }
        let mut images = order.iter();
        self.decode(order, |view| {
            let image = images.next().map(|image| &self.images[*image as usize]);
            let view = view.map_err(|reason| {
                let image = image.map(ToString::to_string).unwrap_or_default();
                PipelineError::Inconsistent(format!(
                    "{image}: could be read before, and cannot now: {}",
                    reason.message
                ))
            })?;
            take(&view)
        })
    }

    fn decode(
        &self,
        order: &[u32],
        mut take: impl FnMut(std::result::Result<Vec<u8>, Unreadable>) -> Result<()>,
    ) -> Result<()> {
        let fetch = |image: &u32| read(&self.images[*image as usize], &Roots::default());
        let decode =
            |_: &u32, bytes| eval_view_of(bytes, self.side, clipood_core::Resize::default());
        let order = order.iter().copied();
        in_order(order, 128, fetch, decode, |view| take(view).map(|()| true))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_from_memory_are_those_that_are_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Source::found(&path)
        };
        let images = [
            image("a.ppm", b"P6 2 2 255\nabcdefghijkl"),
            image("b.ppm", b"no image"),
            image("c.ppm", b"P6 1 1 255\nxyz"),
        ];
        let mut count = 0;
        let (mut views, unreadable) = Views::open(&images, 2, || count += 1).unwrap();
        assert_eq!(count, 3);
        assert_eq!(unreadable.keys().collect::<Vec<_>>(), [&1]);
        let all = |views: &Views<'_>| {
            let mut all = Vec::new();
            let keep = |view: &[u8]| {
                all.push(view.to_vec());
                Ok(())
            };
            views.each(&[2, 0, 2], keep).unwrap();
            all
        };
        let kept = all(&views);
        assert_eq!(kept[1], b"abcdefghijkl");
        assert_eq!(kept[0], kept[2]);
        views.kept = None;
        assert_eq!(all(&views), kept);
        let gone = views.each(&[1], |_| Ok(())).unwrap_err().to_string();
        assert!(gone.contains("could be read before"), "{gone}");
    }
}
