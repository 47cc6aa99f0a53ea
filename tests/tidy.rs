//! The envelope of the tree, as tests: module docs, sizes, crate edges, the README's folder list, and the host's
//! files. A rule that is not tested here is no rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 500;
/// Longest function, in lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Files and functions that may be longer, each with the reason.
const LONGER_WITH_REASON: &[(&str, &str)] = &[];

/// Which crate may depend on which of ours, in the order of the layers of ARCHITECTURE §1.
const EDGES: &[(&str, &[&str])] = &[
    ("sdk", &[]),
    ("wasm-runtime", &["sdk"]),
    ("oci-runtime", &["sdk"]),
    ("registry", &["sdk"]),
    ("node", &["sdk", "wasm-runtime", "oci-runtime", "registry"]),
    ("scheduler", &["sdk", "node", "registry"]),
    ("gateway", &["sdk", "scheduler"]),
];

/// Crates that `sdk` must not know with default features, so that guests can use it.
const NOT_IN_SDK: &[&str] = &["tokio", "hyper", "wasmtime"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file that git tracks or would track.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry")) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_build = path.join("CACHEDIR.TAG").exists();
            if path.is_dir() && !is_build && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the walk found the tree");
    files.sort();
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

fn reports(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let missing = rust_files().into_iter().filter(|path| {
        let text = fs::read_to_string(path).expect("source");
        !text.trim_start().starts_with("//!")
    });
    reports(missing.map(|path| format!("{}: no `//!` at the top", relative(&path))).collect());
}

#[test]
fn files_and_functions_fit_their_limits() {
    let mut problems = Vec::new();
    for path in rust_files() {
        let name = relative(&path);
        let text = fs::read_to_string(&path).expect("source");
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX && !excused(&name) {
            problems.push(format!("{name}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        for (function, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX && !excused(&format!("{name}::{function}")) {
                problems
                    .push(format!("{name}: fn {function} has {length} lines, at most {FUNCTION_LINES_MAX}"));
            }
        }
    }
    reports(problems);
}

fn excused(name: &str) -> bool {
    LONGER_WITH_REASON.iter().any(|(excused, reason)| *excused == name && !reason.is_empty())
}

/// Functions of rustfmt-formatted source: a line that begins one, to the closing brace at the same indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let length = lines[start..].iter().position(|line| *line == end);
        // A declaration without a body, or a body on one line, ends where it begins.
        let declaration_ends =
            lines[start..].iter().position(|line| line.ends_with(';') || line.ends_with('}'));
        if let (Some(length), Some(first_end)) = (length, declaration_ends)
            && first_end != 0
        {
            found.push((name, length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    let is_head = line.split(" fn ").next().is_some_and(|head| {
        head.split(' ').all(|word| {
            matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"")
                || word.starts_with("pub(")
        })
    });
    let rest = if let Some(rest) = line.strip_prefix("fn ") {
        rest
    } else if is_head {
        line.split_once(" fn ")?.1
    } else {
        return None;
    };
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn the_function_finder_finds_functions() {
    let long =
        format!("impl X {{\n    pub async fn long(&self) {{\n{}    }}\n}}\n", "        x;\n".repeat(80));
    assert_eq!(functions(&long), [("long".to_owned(), 82)]);
    assert_eq!(functions("trait T {\n    fn declared(&self);\n}\n"), []);
}

/// The names of our own crates that a manifest names under `[dependencies]`.
fn own_dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).expect("manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(toml::Table::keys);
    names.filter_map(|name| name.strip_prefix("neap-").map(str::to_owned)).collect()
}

#[test]
fn crates_depend_only_downwards() {
    let mut problems = Vec::new();
    for (name, allowed) in EDGES {
        for dependency in own_dependencies(&root().join(name).join("Cargo.toml")) {
            if !allowed.contains(&dependency.as_str()) {
                problems.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    reports(problems);
}

#[test]
fn the_sdk_stays_light() {
    let text = fs::read_to_string(root().join("sdk/Cargo.toml")).expect("manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    let dependencies = manifest["dependencies"].as_table().expect("a table");
    let heavy = dependencies.iter().filter(|(name, value)| {
        let optional = value.get("optional").and_then(toml::Value::as_bool).unwrap_or(false);
        NOT_IN_SDK.contains(&name.as_str()) && !optional
    });
    reports(heavy.map(|(name, _)| format!("sdk must not need {name} by default")).collect());
    let default = manifest["features"].get("default").and_then(toml::Value::as_array);
    assert!(default.is_none_or(Vec::is_empty), "sdk's default features are none");
}

#[test]
fn the_workspace_tests_every_crate_by_default() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    let list = |key: &str| -> BTreeSet<String> {
        let values = manifest["workspace"][key].as_array().expect("a list");
        values.iter().map(|value| value.as_str().expect("text").to_owned()).collect()
    };
    let mut members = list("members");
    assert_eq!(members, EDGES.iter().map(|(name, _)| (*name).to_owned()).collect());
    members.insert(".".to_owned());
    assert_eq!(list("default-members"), members);
}

#[test]
fn the_readme_lists_the_folders_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let listed: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split_once("/` |").map(|(folder, _)| folder.to_owned()))
        .collect();
    let folders = fs::read_dir(root()).expect("root").map(|entry| entry.expect("entry"));
    let existing: BTreeSet<String> = folders
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "target" && !name.starts_with('.'))
        .collect();
    assert_eq!(listed, existing, "README's folder table and the tree");
}

#[test]
fn the_host_has_a_file_for_each_capability() {
    let files = fs::read_dir(root().join("wasm-runtime/src/host")).expect("host folder");
    let files: BTreeSet<String> = files
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "mod" && name != "tests")
        .collect();
    let capabilities: BTreeSet<String> =
        neap_sdk::capability::Capability::ALL.iter().map(|capability| capability.name().to_owned()).collect();
    assert_eq!(files, capabilities);
}

#[test]
fn every_error_code_is_documented() {
    let page = fs::read_to_string(root().join("docs/errors.md")).expect("docs/errors.md");
    let rows: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).collect();
    let mut problems = Vec::new();
    for code in neap_sdk::ErrorCode::ALL {
        let expected = format!("{} | {} |", code.status(), code.exit_code());
        match rows.get(code.name()) {
            Some(row) if row.starts_with(&expected) => {}
            Some(row) => problems.push(format!("{code}: the page says {row:?}, the code {expected:?}")),
            None => problems.push(format!("{code} is missing")),
        }
    }
    reports(problems);
}
