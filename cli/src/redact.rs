//! Takes secrets out of a configuration before it is printed: passwords in addresses, and values whose key says that they are secret.
//!
//! The invariant: what is printed stays a configuration that parses. Settings that name a *file* of secrets are shown, since
//! the file's name is what an operator looks for.

/// What stands where a secret was.
const HIDDEN: &str = "***";
/// A key that ends so holds a secret.
const SECRET_KEYS: [&str; 4] = ["secret", "password", "token", "private-key"];
/// A parameter of an address that ends so holds a secret.
const SECRET_PARAMETERS: [&str; 4] = ["password", "passwd", "secret", "token"];

/// Hides every secret of a configuration.
pub fn configuration(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = address(text),
        toml::Value::Array(values) => values.iter_mut().for_each(configuration),
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                match value {
                    toml::Value::String(text) if is_secret(key) => HIDDEN.clone_into(text),
                    other => configuration(other),
                }
            }
        }
        _ => {}
    }
}

fn is_secret(key: &str) -> bool {
    SECRET_KEYS.iter().any(|secret| key.ends_with(secret))
}

/// `amqp://user:***@host/…` for `amqp://user:password@host/…`; any other text as it is.
fn address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = end_of_authority(rest);
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, password)) if !password.is_empty() => format!("{name}:{HIDDEN}@{host}"),
            _ => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    format!("{scheme}://{authority}{}", parameters(path))
}

/// Where `user:password@host:port` ends. A password with an unescaped `/`, `?` or `#` is no reason to print half of it: where what
/// stands before it is no `host:port`, the last `@` counts.
fn end_of_authority(rest: &str) -> usize {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (authority, after) = rest.split_at(end);
    let cut_short = !authority.contains('@')
        && !authority.ends_with(']')
        && authority.rsplit_once(':').is_some_and(|(_, port)| !is_port(port));
    match after.rfind('@') {
        Some(at) if cut_short => {
            let host = end + at + 1;
            rest[host..].find(['/', '?', '#']).map_or(rest.len(), |slash| host + slash)
        }
        _ => end,
    }
}

fn parameters(path: &str) -> String {
    let Some((before, query)) = path.split_once('?') else { return path.to_owned() };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if SECRET_PARAMETERS.iter().any(|secret| key.to_lowercase().ends_with(secret)) => {
            format!("{key}={HIDDEN}")
        }
        _ => pair.to_owned(),
    });
    format!("{before}?{}", shown.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_password_and_nothing_else() {
        for (given, shown) in [
            ("amqp://user:s3cret@host:5672/%2f", "amqp://user:***@host:5672/%2f"),
            ("redis://:s3cret@host/0", "redis://:***@host/0"),
            ("postgres://u:a@b:c@db.example.org/holdfast", "postgres://u:***@db.example.org/holdfast"),
            ("postgres://u:a/b@db:5432/holdfast", "postgres://u:***@db:5432/holdfast"),
            ("postgres://u:a?b@[::1]:5432/holdfast", "postgres://u:***@[::1]:5432/holdfast"),
            (
                "postgres://db/h?user=u&password=p&sslmode=require",
                "postgres://db/h?user=u&password=***&sslmode=require",
            ),
            ("amqp://holdfast@rabbit.example.org/%2f", "amqp://holdfast@rabbit.example.org/%2f"),
            ("http://[::1]:4317/a@b", "http://[::1]:4317/a@b"),
            ("http://collector:4317/a@b", "http://collector:4317/a@b"),
            ("sqlite:///srv/holdfast/catalog.db", "sqlite:///srv/holdfast/catalog.db"),
            ("127.0.0.1:7400", "127.0.0.1:7400"),
            ("/srv/user:name@host", "/srv/user:name@host"),
        ] {
            assert_eq!(address(given), shown);
        }
    }

    #[test]
    fn a_configuration_keeps_its_shape() {
        let text = "name = 'x'\nredis-url = 'redis://:p@h/'\nkey-file = '/k'\namqp-password-file = '/p'\n\
                    [queue]\namqp-url = 'amqp://u:p@h/v'\n[[apps]]\nclient-id = 'i'\nclient-secret = 'p'\n";
        let mut value: toml::Value = toml::from_str(text).unwrap();
        configuration(&mut value);
        let shown = toml::to_string(&value).unwrap();
        assert_eq!(toml::from_str::<toml::Value>(&shown).unwrap(), value);
        assert_eq!(value["redis-url"].as_str(), Some("redis://:***@h/"));
        assert_eq!(value["queue"]["amqp-url"].as_str(), Some("amqp://u:***@h/v"));
        assert_eq!(value["apps"][0]["client-secret"].as_str(), Some("***"));
        assert_eq!(value["amqp-password-file"].as_str(), Some("/p"));
        assert_eq!(value["key-file"].as_str(), Some("/k"));
    }
}
