//! An object store that fails on command: before or after executing an operation, once, at random, or always.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// When an operation fails. Operations are counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    Never,
    /// This operation fails once with a transient error.
    Once(usize, Moment),
    /// The process dies at this operation: it and all later ones fail for good.
    Crash(usize, Moment),
    /// One operation in `one_in` fails, half of them after having been executed.
    Random {
        one_in: u64,
        seed: u64,
    },
    /// Every write fails with this kind of error.
    Writes(io::ErrorKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    /// Done, but the reply is lost.
    After,
}

#[derive(Debug)]
pub struct Faults {
    inner: Arc<dyn ObjectStore>,
    plan: Plan,
    operations: AtomicUsize,
    pub injected: AtomicU64,
}

impl Faults {
    pub fn new(inner: Arc<dyn ObjectStore>, plan: Plan) -> Self {
        Self {
            inner,
            plan,
            operations: AtomicUsize::new(0),
            injected: AtomicU64::new(0),
        }
    }

    fn next(&self, is_write: bool) -> Option<(Moment, Error)> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let passing = || error(io::ErrorKind::TimedOut);
        let fault = match self.plan {
            Plan::Once(at, moment) if at == number => Some((moment, passing())),
            Plan::Crash(at, moment) if at == number => Some((moment, dead())),
            Plan::Crash(at, _) if at < number => Some((Moment::Before, dead())),
            Plan::Random { one_in, seed } => {
                let hash =
                    blake3::hash(&[seed.to_le_bytes(), (number as u64).to_le_bytes()].concat());
                let draw = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
                let moment = if draw & 1 == 0 {
                    Moment::Before
                } else {
                    Moment::After
                };
                ((draw >> 1) % one_in == 0).then(|| (moment, passing()))
            }
            Plan::Writes(kind) if is_write => Some((Moment::Before, error(kind))),
            _ => None,
        };
        self.injected
            .fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
        fault
    }
}

fn error(kind: io::ErrorKind) -> Error {
    Error::Generic {
        store: "Faults",
        source: Box::new(io::Error::from(kind)),
    }
}

fn dead() -> Error {
    Error::NotSupported {
        source: "this process is dead".into(),
    }
}

async fn faulty<T>(
    fault: Option<(Moment, Error)>,
    operation: impl Future<Output = Result<T>>,
) -> Result<T> {
    match fault {
        None => operation.await,
        Some((Moment::Before, error)) => Err(error),
        Some((Moment::After, error)) => {
            // The caller learns nothing about how it went.
            let _ = operation.await;
            Err(error)
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faults {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        faulty(self.next(true), self.inner.put_opts(path, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        faulty(self.next(false), self.inner.get_opts(path, options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        faulty(self.next(false), self.inner.get_ranges(path, ranges)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.next(true) {
            None => self.inner.delete_stream(paths),
            Some((Moment::Before, error)) => futures_util::stream::iter([Err(error)]).boxed(),
            Some((Moment::After, error)) => {
                let deletion = self.inner.delete_stream(paths);
                async move {
                    let _: Vec<_> = deletion.collect().await;
                    Err(error)
                }
                .into_stream()
                .boxed()
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.next(false) {
            None => self.inner.list(prefix),
            // The listing breaks off: before anything, or after all of it.
            Some((Moment::Before, error)) => futures_util::stream::iter([Err(error)]).boxed(),
            Some((Moment::After, error)) => {
                let end = futures_util::stream::iter([Err(error)]);
                self.inner.list(prefix).chain(end).boxed()
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        faulty(self.next(false), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        faulty(self.next(true), self.inner.copy_opts(from, to, options)).await
    }
}
