# SPDX-License-Identifier: Apache-2.0
"""The `qwen-vla` command: one sub-command per job, typed options, JSON where results are measured.

Packages add commands through the entry point group `qwen_vla.commands` (name → class with `run() -> int`). Commands
that need ROS come that way, so that this library never imports it.
"""

from __future__ import annotations

import functools
import json
import operator
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from qwen_vla.benchmark_options import BenchmarkOptions
from qwen_vla.data.collection import Collection
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.errors.command_errors import in_one_line, refuse_empty_lists, refuse_unknown
from qwen_vla.errors.error_text import as_line
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.option_ranges import Count, Range, RateHz, check_ranges
from qwen_vla.parallel import Engine
from qwen_vla.serving.command import Serve

if TYPE_CHECKING:
    from embodiment_descriptions import Embodiment

COMMANDS = "qwen_vla.commands"
EVALUATORS = "qwen_vla.evaluators"
BENCHMARKS = "qwen_vla.benchmarks"
CORES = os.cpu_count() or 1
ONE_PER_CORE = {"workers": "(default: one per core)"}  # in the help, which is then the same on every machine
DESCRIPTION = (
    "Qwen-VLA: describe a robot, record data, train and evaluate a policy. Every command has examples: "
    "qwen-vla train --help. --version prints the version, QWEN_VLA_TRACEBACK=1 the traceback of an error."
)


@dataclass
class Describe:
    """Print what is derived from a robot's URDF: joints, limits, cameras, channels, and the exact prompt.

    $ qwen-vla describe widowx
    $ qwen-vla describe aloha --hardware real
    $ qwen-vla describe my_robot.yaml --instruction "open the drawer"   # and my_robot.urdf beside it
    $ qwen-vla describe my_robot.urdf --write my_robot.yaml     # guess a YAML, to be corrected
    $ qwen-vla describe my_robot.urdf.xacro --arguments prefix:=left_ gripper:=2f85
    """

    robot: tyro.conf.Positional[str]
    """Name of a robot of the suite, or path of an embodiment YAML, a URDF or a xacro."""
    config: Path | None = None
    """Embodiment YAML for a URDF; without one, what can be guessed is guessed and reported."""
    arguments: tuple[str, ...] = ()
    """Arguments of the xacro, each name:=value."""
    write: Path | None = None
    """Where to write the guess, as an embodiment YAML with comments; an existing file is not replaced."""
    hardware: Literal["mock", "gazebo", "isaac", "real"] = "mock"
    """Hardware or simulator of a robot of the suite; the real one may have other topics and calibrations."""
    instruction: str = "pick up the red cube"
    """Instruction in the prompt."""

    def run(self) -> int:
        from embodiment_descriptions import describe
        from qwen_vla.output_paths import check_files
        from qwen_vla.robots import find_robot

        if self.write and self.write.exists():
            raise FileExistsError(f"{self.write} already exists; name another file for the guess")
        check_files("qwen-vla describe", False, {"--write": self.write})
        embodiment = find_robot(self.robot, self.config, self.hardware, self.arguments)
        if self.write and not embodiment.inferred:
            raise ValueError(f"--write is for a URDF without a YAML; nothing was guessed for {self.robot!r}")
        print(describe(embodiment, self.instruction))
        if self.write:
            self._write(self.write, embodiment)
        return 0

    @staticmethod
    def _write(path: Path, embodiment: Embodiment) -> None:
        from embodiment_descriptions.guess.yaml_text import guessed_yaml
        from qwen_vla.output_files import write_text

        write_text(path, guessed_yaml(embodiment))
        print(f"wrote {path}; place it beside the URDF, and check it against its comments", file=sys.stderr)


@dataclass(frozen=True)
class Collect(Collection):
    """Record a suite's scripted expert as a LeRobotDataset v3.0; run again, it resumes, or adds further episodes.

    Given a recipe, records the missing ones of its datasets, as defined by the file that it names as `collect`.

    $ qwen-vla collect widowx --episodes 100 --out out/data/widowx
    $ qwen-vla collect widowx --task stack_cube --episodes 100 --out out/data/stack
    $ qwen-vla collect aloha --takeover-from checkpoints/tiny --seed 1500000 --out out/data/takeovers
    $ qwen-vla collect config/training/sft_tiny.yaml
    $ qwen-vla collect motions --robot widowx --episodes 500 --out out/data/widowx_motions   # plus a figure of some
    """

    suite: tyro.conf.Positional[str]
    """Task suite, e.g. widowx; a recipe; or `motions`: synthetic arm motions with instructions, without images."""
    out: Path | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  # checked by `_folder`
    """Folder of the dataset; a recipe names its own."""
    workers: Count = CORES
    """Parallel simulators."""
    engine: Engine = "processes"
    """Where they run: in processes of this machine, or on all CPUs of the Ray cluster that it belongs to."""
    robot: str = "widowx"
    """For `motions`: name of a robot of the suite, or path of an embodiment YAML or a URDF."""
    config: Path | None = None
    """For `motions`: embodiment YAML for a URDF that is in another folder."""
    rate_hz: RateHz = 50.0
    """For `motions`: samples per second."""

    def run(self) -> int:
        if Path(self.suite).suffix in (".yaml", ".yml"):
            result = self._recipe()
        elif self.suite == "motions":
            result = self._motions()
        else:
            result = self._suite()
        print(json.dumps(result, indent=2))
        return 0

    def _suite(self) -> dict:
        from qwen_vla.data.collect import collect

        self._refuse_options_but({*(field.name for field in fields(Collection)), "workers", "engine"}, "a suite")
        return collect(self, self.workers, self.engine)

    def _recipe(self) -> dict:
        from qwen_vla.training.recipe_data import collect_data

        self._refuse_options_but({"workers", "engine"}, "a recipe")
        return collect_data(Path(self.suite), self.workers, self.engine)

    def _motions(self) -> dict:
        from qwen_vla.data.motions.motion_files import MotionFiles, choose_robot

        self._refuse_options_but({"out", "episodes", "seed", "robot", "config", "rate_hz"}, "motions")
        robot = choose_robot(self.robot, self.config)
        return MotionFiles(self._folder(), robot, count=self.episodes, seed=self.seed, rate_hz=self.rate_hz).write()

    def _refuse_options_but(self, meant: set[str], what: str) -> None:
        """ValueError for options that do not apply to what is collected, and for a missing folder."""
        for field in fields(self)[1:]:
            if field.name not in meant and getattr(self, field.name) != field.default:
                raise ValueError(f"--{field.name.replace('_', '-')} does not apply to {what}")
        if "out" in meant:
            self._folder()

    def _folder(self) -> Path:
        if self.out is None:
            raise ValueError("--out is missing; name the folder of the dataset")
        return self.out


@dataclass(frozen=True)
class Convert(ConvertOptions):
    """Convert recorded episodes, or other recordings, to a LeRobotDataset v3.0; resumes when interrupted.

    Images of bags are selected and decoded as the policy does live; other formats are read by the episode sources of
    installed packages (docs/how-to/add_an_episode_source.md). Unusable recordings are reported with the reason.

    $ qwen-vla convert ~/qwen_vla_episodes --out out/data/my_robot
    $ qwen-vla convert bags/monday --robot widowx --instruction "open the drawer" --images png --out out/data/monday
    """

    def run(self) -> int:
        from qwen_vla.data.convert import convert

        print(json.dumps(convert(self), indent=2))
        return 0


@dataclass
class Inspect:
    """Show what is understood of a dataset, before anybody trains on it.

    Names, units, limits, cameras, instructions and bad rows of a LeRobotDataset, of bags, or of a JSON Lines file,
    judged as training does. The exit code is 0 only if training on it would be right; otherwise every problem is
    listed with its remedy.

    $ qwen-vla inspect out/data/widowx
    $ qwen-vla inspect ~/data/so101_pick --robot examples/so101/so101.yaml --row 100
    $ qwen-vla inspect bags/monday --robot widowx --instruction "open the drawer" --png out/monday.png
    $ qwen-vla inspect out/data/mine --recipe my_recipe.yaml --json out/inspection.json
    """

    path: tyro.conf.Positional[Path]
    """Folder of a LeRobotDataset, a bag, a folder of bags, or a JSON Lines file."""
    robot: str | None = None
    """Name of a robot of the suite, or path of an embodiment YAML; default: the robot that the dataset names."""
    recipe: Path | None = None
    """Recipe whose entry for this dataset gives the robot, columns, units and cameras."""
    instruction: str | None = None
    """Instruction of bags without one."""
    row: int | None = None
    """A row to show as it is understood: state, action, instruction."""
    json: Path | None = None
    """Where to write the result."""
    png: Path | None = None
    """Where to draw some images of every camera, and the joints beside their limits."""
    overwrite: bool = False
    """Replace files (of --json, --png) even when this command did not make them."""

    def run(self) -> int:
        from rich.console import Console

        from qwen_vla.inspection import MAKER, inspect
        from qwen_vla.output_files import write_json
        from qwen_vla.output_paths import check_files, with_maker

        check_files(MAKER, self.overwrite, {"--json": self.json, "--png": self.png})
        findings = inspect(self.path, self.robot, self.recipe, self.instruction, self.row, self.png)
        findings.print(Console(soft_wrap=True))
        if self.json:
            write_json(self.json, with_maker(MAKER, findings.to_json()))
        return 0 if findings.ok else 1


@dataclass
class Train:
    """Train a recipe of any stage; the same command resumes.

    Ctrl-C saves the state. The folder named as `output` in the recipe gets state.pt (to resume), log.jsonl, loss.png,
    tensorboard/, and model/ for `qwen-vla evaluate --policy`. Several processes (accelerate launch or torchrun) share
    the recipe's batch.

    $ qwen-vla train config/training/t2a_tiny.yaml
    $ qwen-vla train config/training/sft_tiny.yaml --max-steps 100
    $ qwen-vla train config/training/finetune_4b_24gb.yaml --plan      # memory, speed and hours, before any download
    $ torchrun --nproc-per-node 2 -m qwen_vla train config/training/cpt_tiny.yaml
    """

    recipe: tyro.conf.Positional[Path]
    """Recipe file, see config/training/; `qwen-vla collect` with the same file records its data."""
    max_steps: Annotated[int | None, Range(1)] = None
    """Stop at this step and save the state; the schedule stays that of the whole recipe."""
    batch_size: Annotated[int | None, Range(1)] = None
    """Rows of a batch instead of the recipe's: as many samples, in steps whose learning rates grow with its root."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: on a GPU if there is one."""
    engine: Engine = "processes"
    """Where the simulators of stage rl run: on this machine, or on the Ray cluster that it belongs to."""
    plan: bool = False
    """Only print what it would cost: parameters, memory by part, speed and hours. Nothing is downloaded or written."""

    def run(self) -> int:
        from qwen_vla.training.batching.batch_size import with_batch_size
        from qwen_vla.training.output_folder import claim
        from qwen_vla.training.recipe import RecipeError
        from qwen_vla.training.recipe_files import check_inputs, load_recipe

        recipe = load_recipe(self.recipe)
        if recipe.stage == "rl":
            if self.batch_size or self.device != "auto":
                raise RecipeError(
                    f"{self.recipe}: --batch-size and --device are for supervised stages, not for stage rl"
                )
        elif self.engine != "processes":
            raise RecipeError(
                f"{self.recipe}: --engine spreads the simulators of stage rl; other stages use torchrun on every "
                "machine (docs/how-to/several_machines.md)"
            )
        elif self.batch_size:
            recipe = with_batch_size(recipe, self.batch_size)
        if self.plan:
            return self._plan(recipe)
        check_inputs(recipe)
        claim(recipe)
        # Importing PyTorch takes seconds; missing or blocking files are reported before.
        if recipe.stage == "rl":
            from qwen_vla.training.reinforcement import train

            model = train(recipe, self.max_steps, self.engine)
        else:
            from qwen_vla.training.trainer import train

            model = train(recipe, self.max_steps, self.device)
        print(f"model of {recipe.name}: {model}")
        return 0

    @staticmethod
    def _plan(recipe: Any) -> int:
        if recipe.stage == "rl":
            raise ValueError(
                f"recipe {recipe.name}: --plan is for supervised stages; simulators set the pace of stage rl"
            )
        from qwen_vla.training.planning.plan import plan

        print(plan(recipe).text())
        return 0


@dataclass(frozen=True)
class Evaluate(EvaluateOptions):
    """Success rate of a policy on a suite, with its 95 % interval.

    Interrupted with --json, the same command continues where it stopped (with --chaos it starts over). Exit code 0
    whatever the rate is; with --chaos, 1 when a command exceeded a limit of the robot or a process was left behind.

    Seeds below 20000 are validation scenes, free to use; from 20000 on they are test scenes, to be used once, after all
    choices are made; from 1000000 on they are training scenes and refused.

    $ qwen-vla evaluate widowx --episodes 50 --seed 9000 --json out/evaluation.json
    $ qwen-vla evaluate widowx --task stack_cube          # a single task
    $ qwen-vla evaluate aloha --shift colour              # does it generalize? or instance, position …
    $ qwen-vla evaluate widowx --shuffle-instructions     # does it listen? (should fail)
    $ qwen-vla evaluate widowx --blind                    # does it look? (should fail)
    $ qwen-vla evaluate widowx --prompt-of aloha          # does it know its robot? (should fail)
    $ qwen-vla evaluate mobile_base --sheet out/sheet.png --videos out/videos
    $ qwen-vla evaluate widowx --engine ray               # on all machines of a Ray cluster
    $ qwen-vla evaluate widowx --over-ros --episodes 10   # the same through the running ROS graph
    $ qwen-vla evaluate widowx --over-ros --chaos --episodes 10   # with fault injection: is a limit ever exceeded?
    """

    over_ros: bool = False
    """Drive the simulator through policy_node and executor_node as separate processes."""
    markdown: Path | None = None
    """Where to write the summary as Markdown tables."""
    overwrite: bool = False
    """Replace files (of --json, --markdown, --sheet) even when this command did not make them."""

    def run(self) -> int:
        from qwen_vla.evaluation.in_process import evaluate
        from qwen_vla.evaluation.summary import MAKER, VIDEOS
        from qwen_vla.evaluation.write import announce_test, print_summary, withstood, write_summary
        from qwen_vla.output_paths import check_files, check_folder

        self.check()
        wanted = {"--json": self.json, "--markdown": self.markdown, "--sheet": self.sheet}
        check_files(MAKER, self.overwrite, wanted)
        if self.videos:
            check_folder(self.videos, VIDEOS)
        if self.split == "test":
            announce_test(range(self.seed, self.seed + self.episodes))
        summary = (_plugin(EVALUATORS, "ros") if self.over_ros else evaluate)(self)
        print_summary(summary)
        write_summary(summary, self.json, self.markdown)
        return 0 if withstood(summary) else 1


@dataclass
class Report:
    """One page for several evaluations: plots, comparisons, failures.

    Self-contained static HTML from any number of files of evaluate --json. Evaluations that differ in one condition
    only (shift, checkpoint, blind …) are compared, with the interval of the difference.

    $ qwen-vla report out/widowx.json out/widowx_colour.json --out out/report.html
    $ qwen-vla report out/*.json --train-logs out/train/joint_actions --out out/report.html
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Results of evaluate --json, in the order of the page."""
    out: Path = Path("out/report.html")
    """The page."""
    train_logs: tuple[Path, ...] = ()
    """Folders of training runs, whose curves are shown."""
    markdown: Path | None = None
    """Where to write the page's tables as Markdown."""
    pictures: bool = True
    """Show each robot as its simulator renders it (needs OpenGL); one without a simulator here is not shown."""
    overwrite: bool = False
    """Replace such files even when this command did not make them."""

    def run(self) -> int:
        from qwen_vla.evaluation.report import MAKER, write_report
        from qwen_vla.output_paths import check_files

        check_files(MAKER, self.overwrite, {"--out": self.out, "--markdown": self.markdown})
        write_report(self.files, self.out, self.train_logs, self.markdown, self.pictures)
        print(self.out)
        return 0


@dataclass(frozen=True)
class Benchmark(BenchmarkOptions):
    """Measure the latency of a chunk, stage by stage, beside the floor measured in the same run.

    Prints tables and the same figures as JSON (on standard output; the tables go to standard error).

    $ qwen-vla benchmark --preset tiny --json out/benchmark.json
    $ qwen-vla benchmark --checkpoint checkpoints/tiny --robot widowx
    $ qwen-vla benchmark --preset 4b --device cuda
    $ qwen-vla benchmark --runtime    # the ROS nodes: latency around inference, jitter, CPU, memory, smoothness
    """

    runtime: bool = False
    """Measure the running ROS nodes instead, with two 640x480 cameras at 30 Hz; no option above applies."""
    seconds: Annotated[float, Range(1, 86400)] = 60.0
    """With --runtime: how long to run the nodes [s]."""
    episodes: Annotated[int, Range(0)] = 3
    """With --runtime: scenes to run in each blending mode, to measure how smoothly chunks are joined; 0: none."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace the file even when this command did not make it."""

    def run(self) -> int:
        from qwen_vla.output_files import write_json
        from qwen_vla.output_paths import check_files, with_maker

        maker = "qwen-vla benchmark"
        self.check()  # before PyTorch is imported, which takes seconds
        check_files(maker, self.overwrite, {"--json": self.json})
        result = _plugin(BENCHMARKS, "runtime")(self.seconds, self.episodes) if self.runtime else self._model()
        print(json.dumps(result, indent=2))
        if self.json:
            write_json(self.json, with_maker(maker, result))
        return 0

    def _model(self) -> dict:
        from rich.console import Console

        from qwen_vla.benchmark import run_benchmark
        from qwen_vla.benchmark_tables import print_tables

        result = run_benchmark(self)
        print_tables(result, Console(stderr=True))
        return result


def _plugin(group: str, name: str):
    for entry in entry_points(group=group):
        if entry.name == name:
            return entry.load()
    raise RuntimeError(f"nothing provides {name!r} ({group}); install qwen_vla_ros (make setup)")


def _commands() -> dict[str, type]:
    own: dict[str, type] = {
        "describe": Describe,
        "collect": Collect,
        "convert": Convert,
        "inspect": Inspect,
        "train": Train,
        "evaluate": Evaluate,
        "report": Report,
        "serve": Serve,
        "benchmark": Benchmark,
    }
    return own | _added_commands()


def _added_commands() -> dict[str, type]:
    """Commands of other packages; one that cannot be imported (no ROS here) disables only itself."""
    found = {}
    for entry in entry_points(group=COMMANDS):
        try:
            found[entry.name] = entry.load()
        except ImportError as error:
            if entry.name in sys.argv[1:2]:
                raise RuntimeError(f"{entry.name} cannot run here: {error}") from error
    return found


def _choice(name: str, command: type) -> Any:
    """The command for tyro's list of sub-commands, with its first paragraph only; its own help has the full text."""
    description = (command.__doc__ or "").split("\n\n")[0]
    return Annotated[_readable(command), tyro.conf.subcommand(name, description=description)]


@functools.cache
def _readable(command: type) -> type:
    """In the help of a command, name string values after their options, and omit empty defaults."""
    kinds = get_type_hints(command, include_extras=True)
    for field in fields(command):
        kind = kinds[field.name]
        plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        name = field.name.upper().replace("_", "-")
        metavar = {str: name, str | None: name, tuple[str, ...]: f"[{name} [{name} ...]]"}.get(plain)
        if field.default is False:
            kind = tyro.conf.FlagCreatePairsOff[kind]
        marks = tyro.conf.arg(metavar=metavar, help_behavior_hint=ONE_PER_CORE.get(field.name, _default_hint))
        command.__annotations__[field.name] = Annotated[kind, marks]
    return command


def _default_hint(default: str) -> str:
    return "" if default in ("None", "False", "", "''", "inf") else f"(default: {default})"


def parse(arguments: Sequence[str] | None = None) -> Any:
    """The command selected by the arguments (those of the process when None); ends the process after --help."""
    given, commands = list(sys.argv[1:] if arguments is None else arguments), _commands()
    name, *rest = given or [""]
    if name in commands:
        refuse_empty_lists(commands[name], rest)
    elif name and not name.startswith("-"):
        refuse_unknown(name, list(commands))
    config = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)
    with in_one_line():
        if name not in commands:
            choices = functools.reduce(operator.or_, (_choice(name, command) for name, command in commands.items()))
            return tyro.cli(choices, prog="qwen-vla", description=DESCRIPTION, args=given, config=config)
        return tyro.cli(_readable(commands[name]), prog=f"qwen-vla {name}", args=rest, config=config)


def _with_home(command: Any) -> Any:
    """The command with `~` expanded in every path: a shell leaves that of --out=~/data unexpanded."""
    return replace(command, **{field.name: _expanded(getattr(command, field.name)) for field in fields(command)})


def _expanded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_expanded, value))
    return value.expanduser() if isinstance(value, Path) else value


def main() -> None:
    """Entry point of `qwen-vla`: expected errors end in one message and exit code 1, not in a traceback."""
    try:
        if sys.argv[1:] == ["--version"]:
            print(f"qwen-vla {version('qwen_vla')}")
            sys.exit(0)
        command = _with_home(parse())
        check_ranges(command)
        code = command.run()
        sys.stdout.flush()
        sys.exit(code)
    except KeyboardInterrupt as stop:
        if str(stop):
            print(f"qwen-vla: {stop}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        sys.exit(0)
    except (ValueError, OSError, KeyError, RuntimeError, ArithmeticError) as error:
        if os.environ.get("QWEN_VLA_TRACEBACK"):
            raise
        sys.exit(f"qwen-vla: {as_line(error)}")


if __name__ == "__main__":
    main()
