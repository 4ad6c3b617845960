"""A process that measures: it is told what to prepare, then to run it, and answers with seconds.

Lines of JSON come in and go out. `{"prepare": TASK}` is answered with `{"ready": FACTS}` or
`{"missing": SENTENCE}`; `{"run": PART}` with seconds, items done and memory in MB. Other systems
(facenet-pytorch, InsightFace, OpenCV) are run by this file in a Python of their own, which need
not have facenet: nothing of facenet is imported here. Run as `python worker.py SYSTEM THREADS`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from time import perf_counter
from typing import Any

Job = Callable[[Any], Mapping[str, Any]]
"""One run over a part of the work. Gives `items` done, and what else is to be told."""
Opener = Callable[[Mapping[str, Any]], tuple[Job, Mapping[str, Any]]]
"""From a task to what runs it, and facts about it, such as `notes`."""

MARGIN, SIDE = 14, 160
"""Margin and side of the crops of facenet-pytorch, in pixels."""
TOGETHER = 16
"""Crops that a peer embeds at once: its fastest way on a CPU."""
FILM, PEN = (640, 360), 6
"""Width and height of the video that facenet-pytorch's notebook writes, and of its lines."""
RANDOM = (
    "facenet-pytorch embeds with random weights here; the time that it takes does not depend on "
    "them."
)
ALONE = (
    "facenet-pytorch's loop detects in every frame, draws, and writes 640x360 without sound: it "
    "follows nobody, embeds nothing and names nobody, all of which facenet does."
)


class Missing(Exception):
    """What cannot be measured here, and why: one sentence."""


def serve(
    opener: Opener,
    requests: Iterable[str],
    answer: Callable[[Mapping[str, Any]], None],
    *,
    refusals: tuple[type[Exception], ...] = (Missing,),
    clock: Callable[[], float] = perf_counter,
) -> None:
    """Answer requests until there are no more. refusals: exceptions that mean "missing"."""
    job: Job | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if "prepare" in request:
                job = None
                job, facts = opener(request["prepare"])
                answer({"ready": facts})
            elif job is None:
                answer({"missing": "Nothing was prepared."})
            else:
                start = clock()
                done = job(request["run"])
                answer({"seconds": clock() - start, **memory(), **done})
        except refusals as why:
            answer({"missing": str(why)})


def talk(opener: Opener, *, refusals: tuple[type[Exception], ...] = (Missing,)) -> None:
    """Serve over the pipes of this process; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: Mapping[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    serve(opener, sys.stdin, answer, refusals=refusals)


def keep_to(threads: int) -> None:
    """Confine this process to so many of its processors, where the system lets it."""
    try:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    except (AttributeError, OSError):  # not Linux
        return


def memory() -> dict[str, float]:
    """MB that this process has held at most (`peak`), and holds now; empty where not told."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    wanted = {"VmHWM": "peak", "VmRSS": "held"}
    facts = (line.split() for line in lines if line.partition(":")[0] in wanted)
    return {wanted[fact[0].rstrip(":")]: int(fact[1]) * 1024 / 1e6 for fact in facts}


def need(name: str, package: str) -> Any:
    """A module. Raises Missing with a sentence when it cannot be imported."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Missing(
            f"{package} cannot be imported by {sys.executable} ({str(error)[:120]}), so it was "
            "not measured."
        ) from error


def batches(rows: Any, size: int) -> Iterable[Any]:
    """Slices of at most `size` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


class FacenetPytorch:
    """facenet-pytorch: MTCNN and InceptionResnetV1, as its README uses them on a CPU.

    The weights of InceptionResnetV1 are drawn at random: time does not depend on them.
    """

    def __init__(self, threads: int) -> None:
        self.torch = need("torch", "facenet-pytorch")
        self.system = need("facenet_pytorch", "facenet-pytorch")
        self.numpy = need("numpy", "facenet-pytorch")
        self.torch.set_num_threads(threads)
        self.mtcnn = self.system.MTCNN(image_size=SIDE, margin=MARGIN, keep_all=True)
        self.resnet = self.system.InceptionResnetV1(pretrained=None).eval()

    def open(self, task: Mapping[str, Any]) -> tuple[Job, Mapping[str, Any]]:
        """The job of a task."""
        jobs: Mapping[str, Callable[[Mapping[str, Any]], Job]] = {
            "detect": self._detect, "embed": self._embed,
            "pipeline": self._pipeline, "latency": self._latency, "train": self._train,
            "film": self._film,
        }  # fmt: skip
        notes = {"detect": [], "film": [ALONE]}.get(task["job"], [RANDOM])
        facts = versions("facenet-pytorch", "torch", "numpy")
        return jobs[task["job"]](task), {**facts, "notes": notes}

    def _train(self, task: Mapping[str, Any]) -> Job:
        """Its network in the loop of its own example, on random pictures of 160 pixels."""
        torch, batch, classes = self.torch, int(task["batch"]), 1000
        network = self.system.InceptionResnetV1(classify=True, num_classes=classes).train()
        optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
        images = torch.randn(batch, 3, SIDE, SIDE)
        labels = torch.randint(0, classes, (batch,))

        def job(part: Any) -> Mapping[str, Any]:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
            return {"items": batch}

        return job

    def _detect(self, task: Mapping[str, Any]) -> Job:
        frames = self.numpy.load(task["frames"])

        def job(part: Any) -> Mapping[str, Any]:
            found = [self.mtcnn.detect(frame)[0] for frame in frames]
            faces = sum(0 if boxes is None else len(boxes) for boxes in found)
            return {"items": len(frames), "faces": faces}

        return job

    def _film(self, task: Mapping[str, Any]) -> Job:
        """Its notebook of face tracking: every frame is read, looked at, drawn on and written at
        25 frames a second."""
        cv2, image = need("cv2", "facenet-pytorch"), need("PIL.Image", "Pillow")
        pens = need("PIL.ImageDraw", "Pillow")

        def job(part: Any) -> Mapping[str, Any]:
            video, count = cv2.VideoCapture(task["video"]), {"items": 0, "faces": 0}
            film = cv2.VideoWriter(task["film"], cv2.VideoWriter_fourcc(*"mp4v"), 25.0, FILM)
            while film.isOpened() and (read := video.read())[0]:
                picture = image.fromarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
                boxes, _ = self.mtcnn.detect(picture)
                pen = pens.Draw(picture)
                for box in () if boxes is None else boxes:
                    pen.rectangle(box.tolist(), outline=(255, 0, 0), width=PEN)
                    count["faces"] += 1
                small = self.numpy.asarray(picture.resize(FILM, image.BILINEAR))
                film.write(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
                count["items"] += 1
            film.release()
            if not count["items"]:
                raise Missing("The OpenCV beside facenet-pytorch reads or writes no MP4.")
            return count

        return job

    def _vectors(self, crops: Any) -> Any:
        with self.torch.no_grad():
            return self.resnet(crops).numpy()

    def _embed(self, task: Mapping[str, Any]) -> Job:
        crops = self.numpy.load(task["crops"])

        def job(part: Any) -> Mapping[str, Any]:
            for some in batches(crops, task["batch"]):
                pixels = self.torch.from_numpy(some).permute(0, 3, 1, 2).float()
                self._vectors((pixels - 127.5) / 128.0)
            return {"items": len(crops)}

        return job

    def _pipeline(self, task: Mapping[str, Any]) -> Job:
        """JPEG files to vectors: pictures are detected one by one, their crops gather for the
        network. A picture that cannot be read is passed over."""
        image = need("PIL.Image", "Pillow")

        def job(part: Any) -> Mapping[str, Any]:
            waiting: list[Any] = []
            faces = 0
            for path in part:
                try:
                    crops = self.mtcnn(image.open(path).convert("RGB"))
                except OSError:
                    continue
                waiting.extend([] if crops is None else crops)
                faces += 0 if crops is None else len(crops)
                while len(waiting) >= TOGETHER:
                    self._vectors(self.torch.stack(waiting[:TOGETHER]))
                    del waiting[:TOGETHER]
            if waiting:
                self._vectors(self.torch.stack(waiting))
            return {"items": len(part), "faces": faces}

        return job

    def _latency(self, task: Mapping[str, Any]) -> Job:
        image, data = need("PIL.Image", "Pillow"), Path(task["photo"]).read_bytes()
        random = self.numpy.random.default_rng(0)
        people = random.standard_normal((task["people"], 512)).astype("float32")

        def job(part: Any) -> Mapping[str, Any]:
            crops = self.mtcnn(image.open(io.BytesIO(data)).convert("RGB"))
            if crops is None:
                return {"items": 1, "faces": 0}
            best = (self._vectors(crops) @ people.T).argmax(axis=1)
            return {"items": 1, "faces": len(best)}

        return job


class OpenCv:
    """OpenCV's own YuNet, `cv2.FaceDetectorYN`, on the file that facenet runs."""

    def __init__(self, threads: int) -> None:
        self.cv2, self.numpy = need("cv2", "opencv"), need("numpy", "opencv")
        self.cv2.setNumThreads(threads)

    def open(self, task: Mapping[str, Any]) -> tuple[Job, Mapping[str, Any]]:
        """The job of a task; frames go in one by one, in the channel order of OpenCV."""
        if task["job"] != "detect":
            raise Missing(f"opencv has nothing to compare with in {task['job']}.")
        frames = [frame[:, :, ::-1].copy() for frame in self.numpy.load(task["frames"])]
        height, width = frames[0].shape[:2]
        try:
            detector = self.cv2.FaceDetectorYN.create(
                task["model"], "", (width, height), task["score"]
            )
            detector.detect(frames[0])
        except (AttributeError, self.cv2.error) as error:
            why = " ".join(str(error).split())[:160]
            raise Missing(
                f"This opencv cannot run YuNet ({why}), so it was not measured."
            ) from error

        def job(part: Any) -> Mapping[str, Any]:
            found = [detector.detect(frame)[1] for frame in frames]
            return {"items": len(frames), "faces": sum(0 if f is None else len(f) for f in found)}

        return job, {"versions": {"opencv": self.cv2.__version__}}


class InsightFace:
    """InsightFace's `FaceAnalysis` with a pack that is on this machine; nothing is downloaded."""

    PACKS = ("buffalo_l", "buffalo_m", "buffalo_s", "antelopev2", "buffalo_sc")

    def __init__(self, threads: int) -> None:
        self.numpy = need("numpy", "insightface")
        system = need("insightface.app", "insightface")
        home = Path("~/.insightface").expanduser()
        packs = [name for name in self.PACKS if any((home / "models" / name).glob("*.onnx"))]
        if not packs:
            raise Missing(
                f"insightface is installed, but there are no weights of it in {home / 'models'}, "
                "so it was not measured. Put a pack such as buffalo_l there."
            )
        self.pack = packs[0]
        self.app = system.FaceAnalysis(
            name=self.pack, root=str(home), allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
        )  # fmt: skip
        self.app.prepare(ctx_id=-1)

    def open(self, task: Mapping[str, Any]) -> tuple[Job, Mapping[str, Any]]:
        """The job of a task; pictures go in one by one, in the channel order of OpenCV."""
        jobs: Mapping[str, Callable[[Mapping[str, Any]], Job]] = {
            "detect": self._detect, "pipeline": self._pipeline, "latency": self._latency,
        }  # fmt: skip
        if task["job"] not in jobs:
            raise Missing(f"insightface has nothing to compare with in {task['job']}.")
        facts = versions("insightface", "onnxruntime", "numpy")
        return jobs[task["job"]](task), {**facts, "notes": [f"insightface ran with {self.pack}."]}

    def _detect(self, task: Mapping[str, Any]) -> Job:
        frames = [frame[:, :, ::-1].copy() for frame in self.numpy.load(task["frames"])]

        def job(part: Any) -> Mapping[str, Any]:
            found = [self.app.det_model.detect(frame)[0] for frame in frames]
            return {"items": len(frames), "faces": sum(map(len, found))}

        return job

    def _pipeline(self, task: Mapping[str, Any]) -> Job:
        cv2 = need("cv2", "insightface")

        def job(part: Any) -> Mapping[str, Any]:
            pictures = (cv2.imread(path) for path in part)
            faces = sum(len(self.app.get(picture)) for picture in pictures if picture is not None)
            return {"items": len(part), "faces": faces}

        return job

    def _latency(self, task: Mapping[str, Any]) -> Job:
        cv2 = need("cv2", "insightface")
        data = self.numpy.frombuffer(Path(task["photo"]).read_bytes(), "uint8")
        random = self.numpy.random.default_rng(0)
        people = random.standard_normal((task["people"], 512)).astype("float32")

        def job(part: Any) -> Mapping[str, Any]:
            found = self.app.get(cv2.imdecode(data, cv2.IMREAD_COLOR))
            for face in found:
                (people @ face.normed_embedding).argmax()
            return {"items": 1, "faces": len(found)}

        return job


SYSTEMS: Mapping[str, Callable[[int], Any]] = {
    "facenet-pytorch": FacenetPytorch,
    "insightface": InsightFace,
    "opencv": OpenCv,
}


def versions(*packages: str) -> dict[str, Any]:
    """Versions of packages, as a fact."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": found}


def main(name: str, threads: str) -> None:
    """Serve one system, which is loaded when the first task comes."""
    keep_to(int(threads))
    loaded: list[Any] = []

    def opener(task: Mapping[str, Any]) -> tuple[Job, Mapping[str, Any]]:
        if not loaded:
            loaded.append(SYSTEMS[name](int(threads)))
        if task["job"] == "hello":
            return lambda part: {"items": 1}, {}
        job, facts = loaded[0].open(task)
        return job, {**facts, "python": sys.version.split()[0]}

    talk(opener)


if __name__ == "__main__":
    main(*sys.argv[1:])
