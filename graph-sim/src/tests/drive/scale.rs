use super::*;

#[tokio::test]
async fn a_file_of_five_gigabytes_needs_no_memory_to_be_read_or_written() {
    const SIZE: u64 = 5_000_000_000;
    const PIECE: u64 = 100 * 327_680;
    let mut options = people_with_drives();
    (options.population.drive_files_per_user, options.population.drive_large_file_bytes) = (0, SIZE);
    let bench = open(options).await;
    let large = bench.json(&bench.at("/root:/large.zip")).await;
    assert_eq!(large["size"], SIZE);
    let url = large["@microsoft.graph.downloadUrl"].as_str().unwrap();
    let range = |from: u64, to: u64| format!("bytes={from}-{}", to - 1);
    let part = bench.http.get(url).header("range", range(SIZE - 1000, SIZE)).send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().len()), (206, 1000));
    let body = json!({"item": {"fileSize": SIZE}});
    let (_, session) =
        bench.send(Method::POST, &bench.at("/root:/copy.zip:/createUploadSession"), &body).await;
    let to = session["uploadUrl"].as_str().unwrap();
    // The first fragments, as a restore would send them; the rest would only take time.
    for number in 0..2 {
        let (from, end) = (number * PIECE, (number + 1) * PIECE);
        let bytes = bench
            .http
            .get(url)
            .header("range", range(from, end))
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let put = bench.http.put(to).header("content-range", format!("bytes {from}-{}/{SIZE}", end - 1));
        assert_eq!(put.body(bytes).send().await.unwrap().status(), 202);
    }
}

#[tokio::test]
async fn a_drive_of_twenty_thousand_files_is_crawled_in_full_pages() {
    let mut options = people_with_drives();
    options.population.drive_files_per_user = 20_000;
    let bench = open(options).await;
    let (items, _) = bench.all(&bench.at("/root/delta?$select=id,name,parentReference,file"), 1000).await;
    assert_eq!(files(&items).count(), 20_000);
}
