//! Compiles the wire format. protox reads the .proto files, so no protoc needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "holdfast/storage/v1/storage.proto",
        "holdfast/coordinator/v1/worker.proto",
        "holdfast/coordinator/v1/operator.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
