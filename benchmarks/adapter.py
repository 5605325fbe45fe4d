"""Does stable-baselines3's PPO learn CartPole through the adapter as fast as through its own ``DummyVecEnv``?

Usage: python -m rnem_world.benchmarks.adapter [SEEDS]. Prints, for every seed, the mean return of 20 episodes after
so many steps of training in each, and the seconds that it took. The figures in docs/agents.md.
"""

from __future__ import annotations

import sys
import time

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from rnem_world.agents.sb3 import VectorEnvAdapter

ENVIRONMENTS, STEPS, EPISODES = 8, (16_384, 32_768, 65_536, 98_304), 20


def environment(kind: str) -> VecEnv:
    """Makes eight CartPoles."""
    if kind == "DummyVecEnv":
        return make_vec_env("CartPole-v1", n_envs=ENVIRONMENTS)
    envs = gymnasium.make_vec("CartPole-v1", num_envs=ENVIRONMENTS, vectorization_mode="sync")
    return VectorEnvAdapter(envs)


def main() -> None:
    """Measures and prints."""
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        for kind in ("DummyVecEnv", "VectorEnvAdapter"):
            model = PPO(
                "MlpPolicy",
                environment(kind),
                n_steps=256,
                batch_size=256,
                n_epochs=10,
                seed=seed,
                device="cpu",
            )
            begin, returns = time.perf_counter(), []
            for steps in STEPS:
                model.learn(steps - model.num_timesteps, reset_num_timesteps=False)
                test = make_vec_env("CartPole-v1", n_envs=1, seed=1000 + seed)
                returns.append(float(evaluate_policy(model, test, EPISODES)[0]))  # type: ignore[arg-type]
            figures = "  ".join(f"{steps}: {value:5.1f}" for steps, value in zip(STEPS, returns, strict=True))
            print(f"seed {seed}  {kind:17s} {figures}  ({time.perf_counter() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
