"""The speed cases whose requests are small: manifests, small blobs and images, lists, idle connections.

The rule: what is asked again and again was looked at once, and is what was pushed.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from perf.attempt import Attempt
from perf.bodies import Body
from perf.lean import Line, Reply, Steps, must_be, request
from perf.measures import Scale
from perf.operations import MANIFEST, REPOSITORY, image_manifest
from perf.plan import KIB, MB
from perf.transfers import Blob, each_its_own, put
from perf.wire import Refused

INDEX = "application/vnd.oci.image.index.v1+json"
ANY = "*/*"
AT_ONCE = 8  # clients that push or pull images
SEEDERS = 16
SEED_PATIENCE = 600.0  # seconds; there are registries whose ten thousandth tag takes 50 ms


def put_manifest(reference: str, content: bytes) -> bytes:
    return request("PUT", f"{REPOSITORY}/manifests/{reference}", [f"Content-Type: {MANIFEST}"], content)


def in_turn(run: Attempt, requests: Sequence[bytes], *, clients: int = SEEDERS) -> Iterator[Steps[None]]:
    """Clients that share a list of requests, each due 201."""

    def client(first: int) -> Steps[None]:
        with Line(run.port) as line:
            for one in requests[first::clients]:
                yield from line.ask(one, 201)

    return (client(first) for first in range(clients))


def seed_image(run: Attempt, name: str) -> bytes:
    """Push a config of 1 KiB and a layer of 4 KiB; the manifest that names them, not pushed yet."""
    config, layer = Body(f"{name}/config", KIB), Body(f"{name}/layer", 4 * KIB)
    made = [
        Blob(run.digests.of(body), body.size, run.source.wire(body, chunked=False))
        for body in (config, layer)
    ]
    run.drive(each_its_own(run, put, made))
    return image_manifest(config, layer, run.digests)


def look_once(run: Attempt, path: str, accept: str) -> Reply:
    """One GET that must be 200."""
    found: list[Reply] = []

    def client() -> Steps[None]:
        with Line(run.port) as line:
            found.append((yield from line.ask(request("GET", path, [f"Accept: {accept}"]))))

    run.drive([client()])
    return must_be(found[0], 200)


def small_reads(run: Attempt, scale: Scale) -> None:
    """One image; its manifest by tag, its layer by digest."""
    content = seed_image(run, "small")
    run.drive(in_turn(run, [put_manifest("latest", content)], clients=1))
    manifest = f"{REPOSITORY}/manifests/latest"
    layer = f"{REPOSITORY}/blobs/{run.digests.of(Body('small/layer', 4 * KIB))}"
    if look_once(run, manifest, MANIFEST).body != content:
        raise Refused("another manifest than was pushed")
    if look_once(run, layer, ANY).body != Body("small/layer", 4 * KIB).end():
        raise Refused("another blob than was pushed")
    run.hammer("manifest-get", "GET", manifest, MANIFEST, seconds=scale.seconds)
    run.hammer("manifest-head", "HEAD", manifest, MANIFEST, seconds=scale.seconds)
    run.hammer("blob-get", "GET", layer, ANY, seconds=scale.seconds)


def images(run: Attempt, scale: Scale) -> None:
    """Eight clients push whole images, five requests each, then pull them, three requests each."""
    configs = [Body(f"image/{number}/config", KIB) for number in range(scale.images)]
    layers = [Body(f"image/{number}/layer", MB) for number in range(scale.images)]
    contents = [
        image_manifest(config, layer, run.digests) for config, layer in zip(configs, layers, strict=True)
    ]
    config_blobs, layer_blobs = (
        [Blob(run.digests.of(body), body.size, run.source.wire(body, chunked=False)) for body in bodies]
        for bodies in (configs, layers)
    )
    tails = [layer.end() for layer in layers]

    def pusher(first: int) -> Steps[None]:
        with Line(run.port) as line:
            for number in range(first, scale.images, AT_ONCE):
                yield from put(run, line, layer_blobs[number])
                yield from put(run, line, config_blobs[number])
                yield from line.ask(put_manifest(f"image-{number}", contents[number]), 201)

    def puller(first: int) -> Steps[None]:
        with Line(run.port) as line:
            for turn in range(first, scale.image_pulls, AT_ONCE):
                number = turn % scale.images
                manifest = f"{REPOSITORY}/manifests/image-{number}"
                reply = yield from line.ask(request("GET", manifest, [f"Accept: {MANIFEST}"]), 200)
                if reply.body != contents[number]:
                    raise Refused("another manifest than was pushed")
                config, layer = config_blobs[number], layer_blobs[number]
                yield from line.ask(request("GET", f"{REPOSITORY}/blobs/{config.digest}"), 200)
                path = f"{REPOSITORY}/blobs/{layer.digest}"
                yield from line.download(request("GET", path), layer.size, tails[number])

    run.complete("images-push", map(pusher, range(AT_ONCE)), scale.images, each=5)
    run.complete("images-pull", map(puller, range(AT_ONCE)), scale.image_pulls, each=3)


def seed_tags(run: Attempt, scale: Scale) -> None:
    """One manifest under many tags."""
    content = seed_image(run, "tags")
    requests = [put_manifest(f"tag-{number:06}", content) for number in range(scale.tags)]
    run.drive(in_turn(run, requests), patience=SEED_PATIENCE)


def tags(run: Attempt, scale: Scale) -> None:
    """A page of a hundred, and all of them in one reply."""
    path = f"{REPOSITORY}/tags/list"
    pages = {"tags-page": (f"{path}?n=100", 100), "tags-all": (f"{path}?n={scale.tags}", scale.tags)}
    for measure, (asked, due) in pages.items():
        count = len(json.loads(look_once(run, asked, ANY).body)["tags"])
        if count == due:
            run.hammer(measure, "GET", asked, ANY, seconds=scale.seconds)
        else:
            run.remark(f"{count} tags where {due} were due, not measured", measure)


def seed_referrers(run: Attempt, scale: Scale) -> None:
    """Many manifests that name one subject."""
    content = seed_image(run, "subject")
    run.drive(in_turn(run, [put_manifest("subject", content)], clients=1))
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    manifest = json.loads(content)
    manifest["subject"] = {"mediaType": MANIFEST, "digest": digest, "size": len(content)}
    requests = []
    for number in range(scale.referrers):
        manifest["annotations"] = {"number": str(number)}
        requests.append(put_manifest(f"referrer-{number}", json.dumps(manifest).encode()))
    one_by_one = in_turn(run, requests, clients=1)  # a peer loses some of those that come together
    run.drive(one_by_one, patience=SEED_PATIENCE)


def referrers(run: Attempt, scale: Scale) -> None:
    """All of them in one reply."""
    manifest = look_once(run, f"{REPOSITORY}/manifests/subject", MANIFEST).body
    asked = f"{REPOSITORY}/referrers/sha256:{hashlib.sha256(manifest).hexdigest()}"
    count = len(json.loads(look_once(run, asked, INDEX).body)["manifests"])
    if count == scale.referrers:
        run.hammer("referrers", "GET", asked, INDEX, seconds=scale.seconds)
    else:
        run.remark(f"{count} referrers where {scale.referrers} were due, not measured")


def idle(run: Attempt, scale: Scale) -> None:
    """Connections that have asked once and stay."""
    asked = request("GET", "/v2/")
    lines = [Line(run.port) for _ in range(scale.idle)]
    before = run.sample().rss
    try:
        with run.stretch() as found:
            for first in range(0, len(lines), 64):  # so that the backlog is not what we measure
                run.drive(ask_once(line, asked) for line in lines[first : first + 64])
        grown = run.sample().rss - before
    finally:
        for line in lines:
            line.__exit__()
    run.figures["idle"] = replace(found.figure(grown / scale.idle, scale.idle / 1000), seconds=0.0)


def ask_once(line: Line, asked: bytes) -> Steps[None]:
    yield from line.ask(asked, 200)
