//! Items of drives addressed by path: `…/root:/a/b:/content`, `…/items/{id}:/a:/content`.
//!
//! Invariant: an address becomes one segment, `root:/a/b` or `{id}:/a`, so that routes see an item where there is one;
//! `root` itself is an item too. A colon that is part of a name comes encoded and ends nothing.

use crate::query::decode;

/// The decoded segments of a path, every address in one.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut raw = path.split('/').filter(|segment| !segment.is_empty());
    while let Some(segment) = raw.next() {
        let is_item = out.last().is_some_and(|before| before.eq_ignore_ascii_case("items"));
        let (bare, has_path) = match segment.strip_suffix(':') {
            Some(bare) => (bare, true),
            None => (segment, false),
        };
        let is_root = bare.eq_ignore_ascii_case("root") && follows_drive(&out);
        if is_root {
            out.push("items".into());
        }
        let is_address = is_root || (is_item && has_path);
        if !is_address {
            out.push(decode(segment));
            continue;
        }
        let mut item = decode(if is_root { "root" } else { bare });
        if has_path {
            item.push_str(":/");
            let mut names = Vec::new();
            for name in raw.by_ref() {
                let (name, ends) = name.strip_suffix(':').map_or((name, false), |name| (name, true));
                names.push(decode(name));
                if ends {
                    break;
                }
            }
            item.push_str(&names.join("/"));
        }
        out.push(item);
    }
    out
}

/// Whether the segments so far name a drive.
fn follows_drive(before: &[String]) -> bool {
    let is =
        |at: usize, name: &str| before.len() >= at && before[before.len() - at].eq_ignore_ascii_case(name);
    is(2, "drives") || is(1, "drive")
}

/// The path as Microsoft describes it: an item addressed by path is written `{item}:`.
pub(crate) fn described(segments: &[String]) -> String {
    let short = |segment: &String| match segment.split_once(":/") {
        Some((item, _)) => format!("{item}:"),
        None => segment.clone(),
    };
    format!("/{}", segments.iter().map(short).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(path: &str) -> String {
        segments(path).join(" | ")
    }

    #[test]
    fn addresses_are_one_segment() {
        for (path, expected) in [
            ("/drives/d/root/delta", "drives | d | items | root | delta"),
            ("/drives/d/root", "drives | d | items | root"),
            ("/drives/d/root:/a/b%20c:/children", "drives | d | items | root:/a/b c | children"),
            ("/drives/d/root:/a", "drives | d | items | root:/a"),
            ("/drives/d/items/p:/a%3Ab%3A.txt:/content", "drives | d | items | p:/a:b:.txt | content"),
            ("/drives/d/items/p:/x.txt", "drives | d | items | p:/x.txt"),
            ("/users/root/messages", "users | root | messages"),
            ("/users/a/mailFolders/items/messages/x:", "users | a | mailFolders | items | messages | x:"),
        ] {
            assert_eq!(joined(path), expected, "{path}");
        }
        assert_eq!(described(&segments("/drives/d/root:/a/b:/content")), "/drives/d/items/root:/content");
    }
}
