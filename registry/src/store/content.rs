//! The store as admission reads it: local files, every byte checked, no HTTP.

use super::Store;
use crate::{
    admission::{ContentStore, ReadError},
    durable::DiskError,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest},
    limits::REFERRERS_LISTED_MAX,
};
use std::error::Error;

fn unreadable<E: Error + Send + Sync + 'static>(what: String) -> impl FnOnce(E) -> ReadError {
    move |source| ReadError { what, source: Box::new(source) }
}

impl ContentStore for Store {
    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Vec<Digest>, ReadError>> {
        Box::pin(async move {
            let repository = repository.clone();
            let listed = self.run(move |store| {
                let mut digests = Vec::new();
                let mut last = None;
                loop {
                    let page = store.referrers(&repository, digest, None, last)?;
                    digests.extend(page.descriptors.iter().map(|descriptor| descriptor.digest));
                    last = page.next;
                    if last.is_none() || digests.len() >= REFERRERS_LISTED_MAX {
                        digests.truncate(REFERRERS_LISTED_MAX);
                        return Ok::<_, DiskError>(digests);
                    }
                }
            });
            listed.await.map_err(unreadable(format!("the referrers of {digest}")))
        })
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        target: &'a TagOrDigest,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(async move {
            let (repository, wanted) = (repository.clone(), target.clone());
            let found = self.run(move |store| store.manifest(&repository, &wanted)).await;
            Ok(found.map_err(unreadable(format!("manifest {target}")))?.map(|manifest| manifest.bytes))
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(async move {
            let repository = repository.clone();
            let found = self.run(move |store| store.read_blob(&repository, digest, bytes_max)).await;
            found.map_err(unreadable(format!("blob {digest}")))
        })
    }
}
