//! Drives as a client sees them.

mod changes;
mod content;
mod described;
mod evolving;
mod items;
mod limits;
mod scale;
mod sharing;
mod uploads;
mod versions;

use super::*;

fn people_with_drives() -> SimOptions {
    let mut options = options();
    let roles = ["Files.ReadWrite.All", "Sites.FullControl.All"];
    options.apps[0].roles.extend(roles.map(ToOwned::to_owned));
    options.population.drive_files_per_user = 150;
    options.population.drive_file_bytes = 20_000;
    options
}

/// A simulator, and the address of the first person's drive.
struct DriveBench {
    bench: Bench,
    drive: String,
}

impl std::ops::Deref for DriveBench {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

async fn open(options: SimOptions) -> DriveBench {
    let bench = start(options).await;
    let drive = bench.json("/drive").await;
    let drive = format!("{}/v1.0/drives/{}", bench.sim.base_url(), drive["id"].as_str().unwrap());
    DriveBench { bench, drive }
}

impl DriveBench {
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.drive)
    }

    fn item(&self, item: &Value) -> String {
        self.at(&format!("/items/{}", item["id"].as_str().unwrap()))
    }

    /// The whole delta: items and link.
    async fn crawl(&self) -> (Vec<Value>, String) {
        let (items, link) = self.all(&self.at("/root/delta"), 40).await;
        (items, link.unwrap())
    }

    /// What a crawl leads to, by id, the last line of each.
    async fn known(&self) -> (std::collections::BTreeMap<String, Value>, String) {
        let (items, link) = self.crawl().await;
        let mut known = std::collections::BTreeMap::new();
        merge(&mut known, items);
        (known, link)
    }

    async fn truth(&self) -> Vec<Value> {
        self.sim.truth_of("onedrive", &self.user).await.unwrap()
    }

    /// A content host gives bytes to whoever has the address.
    async fn fetch(&self, url: &str) -> Response {
        self.http.get(url).send().await.unwrap()
    }

    /// Where Graph says the content is.
    async fn location(&self, path: &str) -> String {
        let client =
            Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let response = client.get(path).bearer_auth(&self.token).send().await.unwrap();
        assert_eq!(response.status(), 302, "{}", response.text().await.unwrap());
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn put(&self, path: &str, content: impl Into<reqwest::Body>) -> (u16, Value) {
        let put = self.request(Method::PUT, path).header("content-type", "application/octet-stream");
        let response = put.body(content).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn gone(&self, path: &str) -> u16 {
        self.request(Method::DELETE, path).send().await.unwrap().status().as_u16()
    }
}

/// Applies the lines of a round in order.
fn merge(known: &mut std::collections::BTreeMap<String, Value>, lines: Vec<Value>) {
    for line in lines {
        let id = line["id"].as_str().unwrap().to_owned();
        match line["deleted"].is_object() {
            true => known.remove(&id),
            false => known.insert(id, line),
        };
    }
}

/// Paths from ids alone, as a client has to make them.
fn paths(known: &std::collections::BTreeMap<String, Value>) -> std::collections::BTreeMap<String, Value> {
    let path_of = |item: &Value| {
        let mut path = String::new();
        let mut at = item;
        while !at["root"].is_object() {
            path = format!("/{}{path}", at["name"].as_str().unwrap());
            at = &known[at["parentReference"]["id"].as_str().unwrap()];
        }
        path
    };
    let below_root = known.values().filter(|item| !item["root"].is_object());
    below_root.map(|item| (path_of(item), item.clone())).collect()
}

fn files(items: &[Value]) -> impl Iterator<Item = &Value> {
    items.iter().filter(|item| item["file"].is_object())
}

/// A file that is not empty.
fn a_file(items: &[Value]) -> &Value {
    files(items).find(|item| item["size"].as_u64().unwrap() > 3000).unwrap()
}
