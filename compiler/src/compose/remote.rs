//! Addresses of files outside the project: `https://HOST/PATH.aur` and `pkg:REGISTRY/NAME@VERSION/PATH.aur`.
//!
//! In: the path of an import. Out: the normalized address, and its parts, to resolve relative imports of such a file.
//! Not here: fetching the file.

/// Whether a name is an address, not a path in the project.
pub fn is_remote(name: &str) -> bool {
    ["https://", "http://", "pkg:"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// The root of an address and the path below it.
pub fn split(name: &str) -> Option<(&str, &str)> {
    let root = match name.strip_prefix("pkg:") {
        Some(_) => {
            // The `@` of a version is never at the start of a segment, like that of an npm scope.
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

/// The normalized address, or an error message and its help.
pub(super) fn normal(name: &str) -> Result<String, (String, &'static str)> {
    const HELP: &str = "write `https://HOST/PATH.aur` or `pkg:REGISTRY/NAME@VERSION/PATH.aur`";
    let error = |why: &str| Err((format!("`{name}` {why}"), HELP));
    let Some((root, path)) = split(name) else {
        return error("is not the address of a file");
    };
    if !path.ends_with(".aur") {
        return error("is not the address of an .aur file");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return error("has a path with empty or dot segments");
    }
    if name.contains(|char: char| char.is_whitespace() || char.is_control() || "?#\\\"".contains(char)) {
        return error("has characters that are not allowed in an address");
    }
    if let Some((_, host)) = root.split_once("://") {
        if host.is_empty() || host.contains('@') {
            return error("has no host, or has a user name");
        }
        let own = host.rsplit_once(':').map_or(host, |(host, _)| host);
        if root.starts_with("http:") && !matches!(own, "localhost" | "127.0.0.1" | "[::1]") {
            return error("is not encrypted");
        }
    }
    Ok(name.to_owned())
}
