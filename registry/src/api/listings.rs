//! Lists: tags, referrers, repositories. Each answer is a bounded page with a `Link` to the next one.

use super::{
    Call, OCI_FILTERS_APPLIED,
    error::{ApiError, Code},
    json, value,
};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use neap_sdk::{
    Digest,
    artifact::{Repository, media_type},
    limits,
};
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Deserialize)]
struct Page {
    n: Option<usize>,
    last: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    artifact_type: Option<String>,
    last: Option<String>,
}

/// Cuts a sorted list to a page; also the path of the next page where there is one.
fn cut<T: AsRef<str>>(names: Vec<T>, page: &Page, path: &str) -> (Vec<T>, Option<HeaderValue>) {
    let count = page.n.unwrap_or(limits::TAGS_LISTED_MAX).min(limits::TAGS_LISTED_MAX);
    let after = |name: &T| page.last.as_deref().is_none_or(|last| name.as_ref() > last);
    let mut names: Vec<T> = names.into_iter().filter(after).take(count + 1).collect();
    let more = names.len() > count;
    names.truncate(count);
    let last = names.last().filter(|_| more).map(AsRef::as_ref);
    let link = last.map(|last| value(format_args!("<{path}?n={count}&last={last}>; rel=\"next\"")));
    (names, link)
}

fn page_of(body: &serde_json::Value, media_type: &str, link: Option<HeaderValue>) -> Response {
    let mut response = json(StatusCode::OK, media_type, body.to_string().into_bytes());
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

pub(super) async fn tags(call: Call, repository: Repository) -> Result<Response, ApiError> {
    let page: Page = call.query()?;
    let name = repository.clone();
    let tags = call
        .store
        .run(move |store| store.has_repository(&repository).then(|| store.tags(&repository)).transpose());
    let unknown = || ApiError::new(Code::NameUnknown, format!("there is no repository {name}"));
    let tags = tags.await?.ok_or_else(unknown)?.iter().map(|tag| tag.as_str().to_owned()).collect();
    let (tags, link) = cut(tags, &page, &format!("/v2/{name}/tags/list"));
    Ok(page_of(&json!({ "name": name, "tags": tags }), "application/json", link))
}

pub(super) async fn catalog(call: Call) -> Result<Response, ApiError> {
    let page: Page = call.query()?;
    let repositories = call.store.run(|store| store.repositories()).await?;
    let mut names: Vec<String> = repositories.into_iter().map(String::from).collect();
    names.sort();
    let (names, link) = cut(names, &page, "/v2/_catalog");
    Ok(page_of(&json!({ "repositories": names }), "application/json", link))
}

pub(super) async fn referrers(
    call: Call,
    repository: Repository,
    subject: Digest,
) -> Result<Response, ApiError> {
    let Filter { artifact_type, last } = call.query()?;
    let last: Option<Digest> = match last {
        Some(text) => Some(text.parse().map_err(|error| ApiError::caused(Code::DigestInvalid, &error))?),
        None => None,
    };
    let (name, wanted) = (repository.clone(), artifact_type.clone());
    let page = call.store.run(move |store| store.referrers(&name, subject, wanted.as_deref(), last)).await?;
    let link = page.next.map(|next| {
        let filter = artifact_type.as_deref().map(|wanted| format!("&artifactType={}", encode(wanted)));
        let filter = filter.unwrap_or_default();
        value(format_args!("</v2/{repository}/referrers/{subject}?last={next}{filter}>; rel=\"next\""))
    });
    let body = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": page.descriptors });
    let mut response = page_of(&body, media_type::INDEX, link);
    if artifact_type.is_some() {
        response.headers_mut().insert(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(byte.into())
            }
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
        encoded
    })
}
