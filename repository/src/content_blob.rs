//! Makes the content blob of an item from what its writers left.
//!
//! Invariant: the references that come out name every record that the blob names, and are as few as a record may carry.

use bytes::Bytes;
use holdfast_record::{Chunker, MAX_PLAINTEXT_BYTES, RecordKind, short_ref};

use crate::{
    blob::{self, Leaf, MAX_BLOB_REFS, MAX_DIRECT_CHUNKS, MAX_PARTS, PAGE_CHUNKS, Part, Piece},
    content_writer::{ContentDraft, Draft, LeafDraft},
    error::{Error, within},
    secret::ContentHash,
    upload::{Upload, Uploader},
};

/// Inline parts of one item together; above, the larger of them become records of their own.
const MAX_INLINE_BYTES: usize = 1 << 20;
/// Parts up to this stay inline even then.
const SPILL_BYTES: usize = 4 << 10;

/// Encodes the parts and puts long lists of chunks on pages of their own.
pub(crate) async fn content_blob(
    uploader: &Uploader,
    drafts: Vec<ContentDraft>,
) -> Result<(Bytes, Vec<[u8; 16]>), Error> {
    within("item", drafts.len(), MAX_PARTS)?;
    let leaves = || drafts.iter().flat_map(ContentDraft::leaves);
    let inline_bytes: usize = leaves().map(LeafDraft::inline_len).sum();
    let n_chunks: usize = leaves().map(LeafDraft::n_chunks).sum();
    let placing =
        Placing { uploader, spill: inline_bytes > MAX_INLINE_BYTES, all_on_pages: n_chunks > MAX_BLOB_REFS };
    let mut parts = Vec::with_capacity(drafts.len());
    let mut named = Vec::new();
    for draft in drafts {
        parts.push(match draft.0 {
            Draft::Leaf(leaf) => Part::Leaf(placing.leaf(leaf, &mut named).await?),
            Draft::Recipe(recipe) => {
                let mut leaves = Vec::new();
                let shape = recipe.map(&mut |leaf| leaves.push(leaf));
                let mut placed = Vec::with_capacity(leaves.len());
                for leaf in leaves {
                    placed.push(placing.leaf(leaf, &mut named).await?);
                }
                let mut placed = placed.into_iter();
                Part::Recipe(shape.map(&mut |()| placed.next().expect("as many as were taken out")))
            }
        });
    }
    let blob: Bytes = blob::encode(&parts).into();
    within("content blob", blob.len(), MAX_PLAINTEXT_BYTES)?;
    let refs = short_refs(uploader, named);
    within("list of an item's contents", refs.len(), MAX_BLOB_REFS)?;
    Ok((blob, refs))
}

struct Placing<'a> {
    uploader: &'a Uploader,
    spill: bool,
    all_on_pages: bool,
}

impl Placing<'_> {
    /// Decides where a string of bytes stands, and adds the records that this names.
    async fn leaf(&self, leaf: LeafDraft, named: &mut Vec<ContentHash>) -> Result<Leaf, Error> {
        let on_pages = self.all_on_pages || leaf.n_chunks() > MAX_DIRECT_CHUNKS;
        let leaf = match leaf {
            LeafDraft::Inline(bytes) => {
                self.uploader.count_in(bytes.len());
                if self.spill && bytes.len() > SPILL_BYTES {
                    self.spill(bytes).await?
                } else {
                    Leaf::Inline(bytes)
                }
            }
            LeafDraft::Chunks(total, pieces) if on_pages => {
                Leaf::Pages(total, self.write_pages(&pieces).await?)
            }
            LeafDraft::Chunks(total, pieces) => Leaf::Chunks(total, pieces),
        };
        if let Leaf::Chunks(_, pieces) | Leaf::Pages(_, pieces) = &leaf {
            named.extend(pieces.iter().map(|(h, _)| *h));
        }
        Ok(leaf)
    }

    /// One of very many small parts as a record of its own, so that the blob stays small.
    async fn spill(&self, plain: Bytes) -> Result<Leaf, Error> {
        within("inline part", plain.len(), MAX_PLAINTEXT_BYTES)?;
        let (total, len) =
            (plain.len() as u64, u32::try_from(plain.len()).expect("checked against the limit"));
        let upload = Upload { kind: RecordKind::Data, chunker: Chunker::Fcdc1, refs: Vec::new(), plain };
        Ok(Leaf::Chunks(total, vec![(self.name(upload).await?, len)]))
    }

    async fn write_pages(&self, pieces: &[Piece]) -> Result<Vec<Piece>, Error> {
        let mut pages = Vec::with_capacity(pieces.len() / PAGE_CHUNKS + 1);
        for page in pieces.chunks(PAGE_CHUNKS) {
            let plain: Bytes = blob::encode_page(page).into();
            let len = u32::try_from(plain.len()).expect("a page has at most PAGE_CHUNKS chunks");
            let refs = short_refs(self.uploader, page.iter().map(|(h, _)| *h).collect());
            let upload = Upload { kind: RecordKind::Data, chunker: Chunker::Whole, refs, plain };
            pages.push((self.name(upload).await?, len));
        }
        Ok(pages)
    }

    async fn name(&self, upload: Upload) -> Result<ContentHash, Error> {
        self.uploader.named(self.uploader.submit(upload).await?).await
    }
}

fn short_refs(uploader: &Uploader, mut named: Vec<ContentHash>) -> Vec<[u8; 16]> {
    named.sort_unstable();
    named.dedup();
    let sealer = uploader.sealer();
    named.into_iter().map(|h| short_ref(&sealer.id(h))).collect()
}
