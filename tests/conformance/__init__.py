"""The registry as the OCI distribution-spec 1.1 wants it, seen from outside over HTTP.

These tests say in our words what each case of the official conformance suite (1.1) asks, plus what
its table of endpoints and our list of bad input ask, so that CI guards all of it. They know nothing
of the server but its URL; `TRIOREG_TEST_URL` points them at another registry. Where the spec leaves
a choice, they ask for what this registry promises.

Rule: each test uses a repository of its own and fresh bytes, because one server serves them all.

Official suite                                  here
--------------------------------------------    ----------------------------------------------------
ping                                            test_base: test_ping
empty / tag list                                test_base: test_what_is_not_there
                                                test_discovery: test_repository_without_tags
empty / referrers                               test_discovery: test_no_referrers
<algorithm> blobs / get-missing                 test_blob_push: test_push (before each push)
  post only, post+put, stream                   test_blob_push: test_push[…]
  chunked single, multi, multi and put chunk    test_blob_push: test_push[…-chunked, -chunked-put]
  chunked out-of-order, … and put chunk         test_blob_push: test_chunks_out_of_order
  mount                                         test_blob_push: test_mount
  mount anonymous                               test_blob_push: test_mount_without_source
  mount missing                                 test_blob_push: test_mount_of_a_missing_blob
  post cancel                                   test_blob_push: test_cancel
  range requests (six)                          test_blob_pull: test_range, …_that_cannot_be
  empty, emptyJSON                              test_blob_push: test_push_well_known
  bad digest (five ways)                        test_blob_push: test_push_with_a_wrong_digest
  blob-head, blob-get, blob-delete              steps: check_blob, check_blob_absent, in every push
  Location of every 201 can be pulled           steps: check_blob_created
image, image-uncompressed, large-manifest,      test_manifests: test_kind_of_content[<kind>-sha256]
  index, nested-index, empty-index, artifact,     and [<kind>-sha512]: push by digest and tag, tag
  artifact-index, artifact-without-layers,        list, head and pull by digest and tag, blobs,
  artifacts-with-subject, index-with-subject,     referrers with and without filter, deletion of
  missing-subject, data-field,                    tags, manifests and blobs, each gone at once
  non-distributable-layers, custom-fields,
  no-layers, sha512
  tag list with `last`                          test_discovery: test_tags
  manifest PUT: Location, digest                test_manifests: test_push_answer
  manifest PUT: OCI-Subject                     test_manifests: test_subject_is_confirmed
bad-digest-image                                test_manifests: test_digest_mismatch
missing-manifest by digest, by tag              test_base: test_what_is_not_there
invalid-digest-format put, get                  test_manifests: test_malformed_digest
sparse                                          off in 1.1; here refused: test_bad_manifest:
                                                  test_missing_blob, test_missing_child
tag-param-sha256, tag-param-sha512              not in 1.1 (a later draft), not mirrored

Endpoints: end-1 test_base · end-2, 10 test_blob_pull · end-4, 5, 6, 11, 13, 14 test_blob_push ·
end-3, 7, 9 test_manifests · end-8, 12 and the catalogue test_discovery.
Bad input: test_bad_input (well-formed requests), test_bad_manifest, test_bad_wire (raw sockets).
"""
