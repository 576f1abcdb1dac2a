//! Names of files that are not of the project: `https://HOST/PATH.aur` and `pkg:REGISTRY/NAME@VERSION/PATH.aur`.
//!
//! In: what stands behind `import`. Out: one spelling, and the parts that relative imports of such a file are joined with. Not
//! here: bringing the text, which whoever reads the files does.

/// Whether a name is an address and no path of the project.
pub fn is_remote(name: &str) -> bool {
    ["https://", "http://", "pkg:"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// The root of an address and the path below it.
pub fn split(name: &str) -> Option<(&str, &str)> {
    let root = match name.strip_prefix("pkg:") {
        Some(_) => {
            // An npm scope starts with `@`; a version's never stands first in its segment.
            let version = name
                .match_indices('@')
                .map(|(at, _)| at)
                .find(|&at| !name[..at].ends_with('/'))?;
            version + name[version..].find('/')?
        }
        None => {
            let host = name.find("://").filter(|_| is_remote(name))? + 3;
            host + name[host..].find('/')?
        }
    };
    Some((&name[..root], &name[root + 1..]))
}

/// The address in its one spelling, or why it is none and what to do.
pub(super) fn normal(name: &str) -> Result<String, (String, &'static str)> {
    const HELP: &str = "write `https://HOST/PATH.aur` or `pkg:REGISTRY/NAME@VERSION/PATH.aur`";
    let fault = |why: &str| Err((format!("`{name}` {why}"), HELP));
    let Some((root, path)) = split(name) else {
        return fault("names no file");
    };
    if !path.ends_with(".aur") {
        return fault("names no .aur file");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return fault("has a path with empty parts");
    }
    if name.contains(|char: char| char.is_whitespace() || char.is_control() || "?#\\\"".contains(char)) {
        return fault("has characters that no address of a file has");
    }
    if let Some((_, host)) = root.split_once("://") {
        if host.is_empty() || host.contains('@') {
            return fault("names no host, or a user");
        }
        let own = host.rsplit_once(':').map_or(host, |(host, _)| host);
        if root.starts_with("http:") && !matches!(own, "localhost" | "127.0.0.1" | "[::1]") {
            return fault("is not encrypted");
        }
    }
    Ok(name.to_owned())
}
