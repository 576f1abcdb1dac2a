//! `file:` URIs and paths.

use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use lsp_types::Uri;

/// The path of a `file:` URI, without `.` and `..`. `None` for other URIs.
pub fn path(uri: &Uri) -> Option<Utf8PathBuf> {
    if uri.scheme()?.as_str() != "file" {
        return None;
    }
    let decoded = uri.path().as_estr().decode().into_string().ok()?;
    Some(normal(Utf8Path::new(&decoded)))
}

/// The URI of an absolute path.
pub fn of(path: &Utf8Path) -> Option<Uri> {
    let mut text = "file://".to_owned();
    for byte in path.as_str().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    Uri::from_str(&text).ok()
}

/// The path without `.` and `..`.
pub fn normal(path: &Utf8Path) -> Utf8PathBuf {
    let mut normal = Utf8PathBuf::new();
    for component in path.components() {
        match component {
            camino::Utf8Component::CurDir => {}
            camino::Utf8Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::{normal, of, path};
    use camino::Utf8Path;

    #[test]
    fn paths_come_back_from_their_uris() {
        for name in ["/a/b.aur", "/mit leer/ä 100%.aur", "/a#b/c?d"] {
            let uri = of(Utf8Path::new(name)).expect("a URI");
            assert_eq!(path(&uri).expect("a path"), name, "{}", uri.as_str());
        }
        assert_eq!(normal(Utf8Path::new("/a/./b/../c")), "/a/c");
    }
}
