//! Weight files of every maker, brought into one form.
//!
//! [`torch_file`] reads and writes what `torch.save` writes, without running anything of it.

mod pickle;
mod problem;
pub mod torch_file;
mod torch_write;
pub mod value;
mod zip;
