#![allow(missing_docs)]
use crate::{DetectorKind, DetectorSpec};
#[derive(Clone, Copy)]
pub struct Needs { pub texts: bool, pub negatives: Option<Negatives>, pub shots: bool, pub labels: bool, pub patches: bool }
#[derive(Clone, Copy)]
pub enum Negatives { Mined, Unknown }
impl Needs { pub fn is_fitted(&self) -> bool { self.shots || self.negatives.is_some() } }
impl DetectorSpec {
    pub fn needs(&self) -> Needs {
        let on = self.info().fitted_on;
        Needs { texts: self.kind().needs_texts(), negatives: match self.kind() { DetectorKind::NegLabel{..} => Some(Negatives::Mined), DetectorKind::UnknownPrompt{..} => Some(Negatives::Unknown), _ => None },
          shots: on.contains("train"), labels: on.contains("labels"), patches: matches!(self.kind(), DetectorKind::LMcm{..}|DetectorKind::GlMcm{..}) }
    }
    pub fn without_alias(&self) -> DetectorSpec { DetectorSpec::new(self.kind()) }
}
