//! Listing what refers to a manifest: the referrers API with all its pages, or the tag that stands in for it.
//!
//! Entries are hints: some registries write a wrong artifact type into them, so nothing is filtered here.

use super::{
    ClientError, RegistryClient,
    http::{Call, read_body, refusal},
};
use crate::manifest::{Descriptor, Manifest};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use neap_sdk::{
    Digest,
    artifact::{Repository, Tag, TagOrDigest, media_type},
    limits,
};

/// The tag under which a registry without the API keeps the list. Source: distribution-spec "Referrers Tag Schema".
pub(super) fn fallback_tag(digest: Digest) -> Tag {
    format!("sha256-{}", digest.hex()).parse().expect("letters, digits and '-' make a tag")
}

impl RegistryClient {
    /// The referrers of a manifest: up to [`limits::REFERRERS_LISTED_MAX`] from [`limits::REFERRERS_PAGES_MAX`] pages.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let mut url = self.host.url(&self.path(repository, &format!("referrers/{digest}")))?;
        let accept = HeaderValue::from_static(media_type::INDEX);
        let mut entries = Vec::new();
        for page in 0..limits::REFERRERS_PAGES_MAX {
            let call = Call::new(Method::GET, url.clone()).header(header::ACCEPT, accept.clone());
            let response = self.send(call, &self.scope(repository, "pull")).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND if page == 0 => {
                    return self.fallback_referrers(repository, digest).await;
                }
                _ => return Err(refusal(format!("the referrers of {digest}"), response).await),
            }
            let next = next_page(response.headers());
            entries.extend(read_index(response).await?);
            entries.truncate(limits::REFERRERS_LISTED_MAX);
            let Some(next) = next.filter(|_| entries.len() < limits::REFERRERS_LISTED_MAX) else { break };
            let joined = url.join(&next).ok().filter(|next| self.host.is(next));
            url = joined
                .ok_or_else(|| ClientError::Protocol("a page of referrers points elsewhere".to_owned()))?;
        }
        Ok(entries)
    }

    /// The list under the fallback tag; empty where there is none.
    pub(super) async fn fallback_referrers(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let tag = TagOrDigest::Tag(fallback_tag(digest));
        let Some(found) = self.manifest(repository, &tag).await? else { return Ok(Vec::new()) };
        match Manifest::parse(&found.bytes, &found.media_type)? {
            Manifest::Index(index) => Ok(index.manifests),
            Manifest::Image(_) => Err(ClientError::Protocol(format!("tag {tag} is no list of referrers"))),
        }
    }
}

async fn read_index(response: reqwest::Response) -> Result<Vec<Descriptor>, ClientError> {
    let max = usize::try_from(limits::MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = read_body(response, max).await?;
    match Manifest::parse(&bytes, media_type::INDEX)? {
        Manifest::Index(index) => Ok(index.manifests),
        Manifest::Image(_) => Err(ClientError::Protocol("a list of referrers is no index".to_owned())),
    }
}

/// The target of `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(header::LINK).iter().filter_map(|link| link.to_str().ok());
    links.flat_map(|link| link.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|part| {
            let part = part.trim().replace(' ', "");
            part.eq_ignore_ascii_case("rel=\"next\"") || part.eq_ignore_ascii_case("rel=next")
        });
        is_next.then(|| target.to_owned())
    })
}
