# SPDX-License-Identifier: Apache-2.0
"""PPO: its losses by hand, an update that starts from where the policy is, a task that it really learns, and runs that
can be interrupted. The task is a one-step environment; the suites' own are in test_reinforcement_suites.py.
"""

import contextlib
import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from comparison import assert_alike
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qwen_vla import Policy, QwenVLAModel, QwenVLAProcessor
from qwen_vla.evaluation.in_process import refuse_trained_seeds
from qwen_vla.model.flow_matching import tau_grid
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import OutputRefused
from qwen_vla.seeds import FIRST_TEST_SEED
from qwen_vla.training.output_folder import STATE_FILE
from qwen_vla.training.progress.log import read_log
from qwen_vla.training.recipe import RecipeError
from qwen_vla.training.reinforcement import trainer
from qwen_vla.training.reinforcement.actor import Actor, Sampling
from qwen_vla.training.reinforcement.flow_sde import Transition, transition
from qwen_vla.training.reinforcement.ppo import (
    Minibatch,
    _look_back,
    _step,
    approximate_kl,
    policy_loss,
    update,
    value_loss,
)
from qwen_vla.training.reinforcement.recipe import PPO, ReinforcementRecipe
from qwen_vla.training.reinforcement.rollout import roll_out
from qwen_vla.training.reinforcement.run import VALUE_HEAD_FILE
from qwen_vla.training.reinforcement.value_head import ValueHead
from qwen_vla.training.state import StateError
from qwen_vla.training.trainer import TrainingStopped

SAMPLING = Sampling(temperature=1.0, noise_level=0.5)
FAST = PPO(actor_lr=2e-3, value_lr=1e-2, minibatch=32)


class Reach(gymnasium.Env):
    """One decision: success if the executed steps of channel x are, on average, above 0.3 (normalized)."""

    observation_space = gymnasium.spaces.Dict(
        {"images": gymnasium.spaces.Dict({}), "joints": gymnasium.spaces.Box(-1, 1, (7,))}
    )
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (4, 7), np.float32)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {"instruction": "reach forward"}

    def step(self, action):
        reward = float(action[:2, 0].mean() > 0.3)
        return self.observation_space.sample(), reward, True, False, {"refused": False, "reasons": ""}


@pytest.fixture
def policy(checkpoint):
    """A fresh copy of the micro model that reads its instruction and sees nothing."""
    policy = Policy.from_pretrained(checkpoint)
    policy.embodiment = replace(policy.embodiment, camera_tags=())
    return policy


@pytest.fixture
def envs():
    return SyncVectorEnv([Reach] * 32, autoreset_mode=AutoresetMode.DISABLED)


def learner(policy, options=FAST):
    actor = Actor(policy, SAMPLING)
    head = ValueHead(policy.model.config.vlm_config.text_config.hidden_size)
    groups = [
        {"params": [p for p in policy.model.parameters() if p.requires_grad], "lr": options.actor_lr},
        {"params": list(head.parameters()), "lr": options.value_lr},
    ]
    return actor, head, torch.optim.AdamW(groups, weight_decay=0.0)


def decisions_of(actor, envs):
    return [decision for episode in roll_out(actor, envs, range(32), SAMPLING, 0) for decision in episode.decisions]


# ------------------------------------------------------------------ losses
def test_policy_loss_ignores_what_was_already_gained_and_never_what_is_lost():
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert policy_loss(ratio, advantage, 0.2).item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)


def test_value_loss_takes_the_larger_of_free_and_held_error():
    value, old = torch.tensor([1.0, 0.1]), torch.zeros(2)
    target = torch.tensor([1.0, 1.0])
    assert value_loss(value, old, target, 0.2).item() == pytest.approx((0.8**2 + 0.9**2) / 2)


def test_approximate_kl_of_two_normal_distributions():
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.3, 1.0)
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    kl = approximate_kl(new.log_prob(x) - old.log_prob(x)).item()
    assert kl == pytest.approx(torch.distributions.kl_divergence(old, new).item(), rel=0.02)


# ------------------------------------------------------------------ the first update
def test_the_ratio_is_one_before_the_first_update(policy, envs):
    actor, head, _ = learner(policy)
    decisions = decisions_of(actor, envs)
    batch = _look_back(actor, head, decisions)
    again = actor.log_probability(actor.encode(batch.seen), batch.transition)
    assert again.requires_grad
    assert_alike(again, batch.old_log)


def test_probabilities_hold_whatever_batch_a_decision_is_in(policy, envs):
    actor, head, _ = learner(policy)
    decisions = decisions_of(actor, envs)
    together = _look_back(actor, head, decisions)
    alone = [_look_back(actor, head, [decision]) for decision in decisions[:5]]
    assert_alike(together.old_log[:5], torch.cat([batch.old_log for batch in alone]))


def test_only_executed_steps_of_the_robot_s_channels_count(policy, envs):
    actor, head, _ = learner(policy)
    batch = _look_back(actor, head, decisions_of(actor, envs))
    counted = actor.embodiment.execution_horizon
    assert counted < actor.embodiment.horizon, "or this test shows nothing"
    following = batch.transition.following.clone()
    following[:, counted:] += 100.0
    following[:, :, len(actor.embodiment.channel_names) :] = torch.nan
    moved = type(batch.transition)(batch.transition.noisy, following, batch.transition.step)
    assert_alike(actor.log_probability(actor.encode(batch.seen), moved), batch.old_log)


def test_all_rows_count_if_asked(policy, envs):
    """The exact density of what was drawn: of each channel of the robot, in every row of its chunk, by hand."""
    actor = Actor(policy, SAMPLING, counted_rows="all")
    decisions = decisions_of(actor, envs)[:4]
    steps = Transition(
        *(torch.cat([getattr(d.transition, n) for d in decisions]) for n in ("noisy", "following", "step"))
    )
    encoding = actor.encode([d.seen for d in decisions])
    found = actor.log_probability(encoding, steps).detach()
    grid = tau_grid(actor.steps)
    velocity = actor._velocity(encoding, actor.mask.expand(4, -1, -1))(steps.noisy, grid[steps.step])
    mean, std = transition(steps.noisy, velocity, grid[steps.step], grid[steps.step + 1], 0.5)
    density = torch.distributions.Normal(mean, std).log_prob(steps.following)[:, :, :7].sum((1, 2)).detach()
    torch.testing.assert_close(found, density, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(found, Actor(policy, SAMPLING).log_probability(encoding, steps).detach())


def test_the_critic_never_moves_the_policy(policy, envs):
    actor, head, optimizer = learner(policy)
    before = {name: value.clone() for name, value in actor.model.state_dict().items()}
    episodes = roll_out(actor, envs, range(32), SAMPLING, 0)
    for episode in episodes:
        episode.rewards = [1.0]  # all alike: no decision was better than another, but all are worth something
    update(actor, head, optimizer, episodes, FAST, np.random.default_rng(0))
    assert all(torch.equal(value, before[name]) for name, value in actor.model.state_dict().items())
    assert head.out.bias.abs().item() > 0


def test_a_frozen_backbone_stays_and_the_expert_learns(policy, envs):
    policy.model.vlm.requires_grad_(False)
    actor, head, optimizer = learner(policy)
    before = {name: value.clone() for name, value in actor.model.state_dict().items()}
    episodes = roll_out(actor, envs, range(64), SAMPLING, 0)
    update(actor, head, optimizer, episodes, FAST, np.random.default_rng(0))
    moved = {
        name.split(".")[0] for name, value in actor.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"action_expert"}


def test_a_limit_on_the_kl_ends_the_update_early(policy, envs):
    actor, head, optimizer = learner(policy)
    episodes = roll_out(actor, envs, range(64), SAMPLING, 0)
    options = FAST.model_copy(update={"target_kl": 1e-4, "actor_lr": 2e-3})
    row = update(actor, head, optimizer, episodes, options, np.random.default_rng(0))
    assert 0 < row["passes"] < options.epochs


def test_a_step_that_is_not_finite_is_refused_and_changes_nothing(policy, envs):
    actor, head, optimizer = learner(policy)
    together = _look_back(actor, head, decisions_of(actor, envs))
    batch = Minibatch(**vars(together), advantage=torch.full((32,), torch.inf), target=torch.zeros(32))
    before = [p.clone() for p in actor.model.parameters()]
    with pytest.raises(FloatingPointError, match="lower the learning rates"):
        _step(actor, head, optimizer, batch, FAST)
    assert all(torch.equal(p, q) for p, q in zip(actor.model.parameters(), before, strict=True))


# ------------------------------------------------------------------ it learns
def test_it_learns_what_is_rewarded(policy, envs):
    """Ten runs with other noise came to 0.68 … 0.98, valued 0.71 … 0.98; at the rate of FAST, rounding would decide."""
    options = FAST.model_copy(update={"actor_lr": 1e-3})
    actor, head, optimizer = learner(policy, options)

    def mean_reward(scenes, seed):
        return np.mean([episode.success for episode in roll_out(actor, envs, scenes, SAMPLING, seed)])

    before = mean_reward(range(10_000, 10_128), seed=1)
    for step in range(20):
        episodes = roll_out(actor, envs, range(64 * step, 64 * step + 64), SAMPLING, 0)
        row = update(actor, head, optimizer, episodes, options, np.random.default_rng([0, step]))
    after = mean_reward(range(10_000, 10_128), seed=1)
    print(f"success {before:.2f} before, {after:.2f} after; {row}")
    assert after > before + 0.3, "standard error of either: 0.04"
    assert row["value"] > 0.5, "the critic has learned what to expect"


# ------------------------------------------------------------------ runs
@pytest.fixture
def recipe(checkpoint, tmp_path, monkeypatch):
    """Two updates of four episodes of `Reach`, from a checkpoint whose robot has no cameras."""
    monkeypatch.setattr(
        trainer, "parallel_envs", lambda *_: SyncVectorEnv([Reach] * 4, autoreset_mode=AutoresetMode.DISABLED)
    )
    start = tmp_path / "start"
    model = Policy.from_pretrained(checkpoint, accelerate="off").model
    processor = QwenVLAProcessor.from_pretrained(checkpoint)
    processor.embodiments = {n: replace(e, camera_tags=()) for n, e in processor.embodiments.items()}
    model.save_pretrained(start)
    processor.save_pretrained(start)
    write_json(start / "training.json", {"data": [{"suite": "widowx_pick", "seeds": [1_000_000, 1_000_100]}]})
    fields = {"stage": "rl", "name": "reach", "output": tmp_path / "run", "init_from": start, "suite": "widowx_pick"}
    sizes = {"steps": 3, "episodes": 4, "environments": 4, "save_every": 1}
    validation = {"every": 2, "episodes": 4}
    return ReinforcementRecipe.model_validate(fields | sizes | {"validation": validation, "ppo": {"actor_lr": 1e-3}})


def weights(folder):
    return {name: p.clone() for name, p in Policy.from_pretrained(folder).model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_leaves_a_policy_that_has_moved_and_says_where_it_was_trained(recipe):
    folder = trainer.train(recipe)
    assert folder == recipe.output / "model" and not same(weights(folder), weights(recipe.init_from))
    rows = read_log(recipe.output)
    assert [row["step"] for row in rows if "kl" in row] == [1, 2, 3]
    assert [row["step"] for row in rows if "held_out/success" in row] == [0, 2]
    assert {"curve.png", STATE_FILE, "tensorboard"} <= {path.name for path in recipe.output.iterdir()}
    assert (folder / VALUE_HEAD_FILE).is_file()
    data = json.loads((folder / "training.json").read_text())["data"]
    assert [entry["seeds"] for entry in data] == [[3_000_000, 3_000_012], [1_000_000, 1_000_100]]
    with pytest.raises(ValueError, match="overlap with the training data"):
        refuse_trained_seeds(folder, 3_000_011, 5)
    refuse_trained_seeds(folder, 3_000_012, 5)
    assert "3 of 3 steps, seed 0" in (folder / "README.md").read_text()


def test_an_interrupted_run_goes_on_to_the_same_end(recipe, tmp_path):
    whole = weights(trainer.train(recipe))
    parts = recipe.model_copy(update={"output": tmp_path / "parts"})
    trainer.train(parts, max_steps=1)
    (parts.output / "model/evaluation.json").write_text("mine")
    (parts.output / "log.jsonl").open("a").write('{"step": 2, "success": 1.0}\n{"step": 3, "suc')  # killed right here
    assert same(weights(trainer.train(parts)), whole)
    assert (parts.output / "model/evaluation.json").read_text() == "mine"
    measured = [[row.get("success") for row in read_log(folder)] for folder in (recipe.output, parts.output)]
    assert measured[0] == measured[1]


def test_told_to_stop_in_the_middle_of_a_roll_out_it_keeps_the_last_update(recipe, monkeypatch):
    class Hasty(trainer.StopSignal):
        asks = 0

        @property
        def asked(self):
            Hasty.asks += 1
            return Hasty.asks > 3  # validation, the first update, the validation after it is not due: in the second

        @asked.setter
        def asked(self, value):
            pass

    monkeypatch.setattr(trainer, "StopSignal", Hasty)
    with pytest.raises(TrainingStopped, match="stopped at step 2 of 3"):
        trainer.train(recipe)
    assert torch.load(recipe.output / STATE_FILE, weights_only=True)["step"] == 2
    monkeypatch.undo()


def test_a_damaged_state_is_named_with_the_way_out(recipe):
    trainer.train(recipe, max_steps=1)
    state = recipe.output / STATE_FILE
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(StateError, match=r"state.pt is corrupt or truncated \(100 bytes\); delete it to train from"):
        trainer.train(recipe)


def test_a_state_of_another_recipe_is_not_continued(recipe):
    trainer.train(recipe, max_steps=1)
    with pytest.raises(RecipeError, match="seed"):
        trainer.train(recipe.model_copy(update={"seed": 1}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_scene": 7000}, "greater than or equal to 3000000"),
        ({"validation": {"seed": FIRST_TEST_SEED}}, "validation.seed needs validation seeds, got test seeds"),
        ({"validation": {"seed": FIRST_TEST_SEED - 1}}, "of more than one split"),
        ({"euler_steps": 1}, "greater than or equal to 2"),
        ({"noise_level": 1.5}, "less than or equal to 1"),
        ({"ppo": {"gama": 0.9}}, "ppo.gama"),
        ({"stage": "sft"}, "stage"),
    ],
)
def test_wrong_values_are_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        ReinforcementRecipe.model_validate({**recipe.model_dump(), **changes})


def test_the_defaults_are_the_paper_s_constants():
    options = PPO()
    found = (options.gamma, options.gae_lambda, options.clip, options.value_coefficient, options.epochs)
    assert found == (0.99, 0.95, 0.2, 1.0, 4) and (options.actor_lr, options.value_lr) == (5e-6, 1e-4)
    fields = ReinforcementRecipe.model_fields
    assert fields["temperature"].default == 1.0 and fields["validation"].default.temperature == 0.6


def test_a_folder_of_somebody_else_is_refused_before_training(recipe):
    thesis = recipe.output / "model/thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(OutputRefused, match="run is not empty and was not made by train; choose another folder"):
        trainer.train(recipe)
    (recipe.output / "recipe.json").write_text(recipe.model_dump_json())
    with pytest.raises(OutputRefused, match="run/model is not a model written by train; move it away"):
        trainer.train(recipe)
    assert thesis.read_text() == "years of work"


def test_adapters_in_half_precision_are_trained_resumed_and_merged(recipe, tmp_path):
    """What 4b needs on one GPU: a frozen backbone in bf16, adapters and expert in float32, checkpointed layers."""
    changes = {"lora": {"rank": 4}, "autocast": "bf16", "gradient_checkpointing": True, "steps": 2}
    ends = []
    for name, stops in (("whole", [None]), ("resumed", [1, None])):
        adapted = recipe.model_validate({**recipe.model_dump(), **changes, "output": tmp_path / name})
        for stop in stops:
            with contextlib.suppress(TrainingStopped):
                trainer.train(adapted, stop)
        ends.append(QwenVLAModel.from_pretrained(tmp_path / name / "model").state_dict())
    before = QwenVLAModel.from_pretrained(recipe.init_from).state_dict()
    assert ends[0].keys() == before.keys(), "adapters are merged"
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-5, atol=1e-6)
    changed = {name for name, value in ends[0].items() if not torch.equal(value, before[name].to(value.dtype))}
    assert any(".q_proj." in name for name in changed) and any("action_expert." in name for name in changed)
    held = trainer.prepare(adapted).actor.model
    assert {p.dtype for p in held.vlm.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in held.parameters() if p.requires_grad} == {torch.float32}
