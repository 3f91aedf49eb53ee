"""Modules that make their own steps, each with the loop of plain torch that it must equal."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, seeding

SEED = 1


def seed_batch(global_step: int, rank: int | None = None) -> None:
    """The random streams of a batch, as a fit has them."""
    if rank is None:
        seeding.build_seeder(SEED, seeding.MODEL, None)(global_step)
    else:
        seeding.seed_streams(SEED, seeding.MODEL, global_step, rank, 0)


class Points(LightningModule):
    """The data of all of them: 8 batches of 4 points in the plane."""

    nb_batches = 8
    automatic_optimization = False

    @property
    def tng_dataloader(self) -> Any:
        points = torch.randn(4 * self.nb_batches, 2, generator=torch.Generator().manual_seed(2))
        return DataLoader(TensorDataset(points), batch_size=4)


def network(nb_in: int, nb_out: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(nb_in, 8), nn.Tanh(), nn.Linear(8, nb_out))


class Wgan(Points):
    """A critic, five times a batch, and a generator, once: Gulrajani et al. (2017)."""

    nb_critic_steps = 5

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = network(3, 2, 1), network(2, 1, 2)

    def penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        mix = torch.rand(len(real), 1, dtype=real.dtype)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (slope.norm(dim=1) - 1).pow(2).mean()

    def critic_loss(self, real: Tensor) -> Tensor:
        fake = self.generator(torch.randn(len(real), 3, dtype=real.dtype)).detach()
        return self.critic(fake).mean() - self.critic(real).mean() + 10 * self.penalty(real, fake)

    def generator_loss(self, real: Tensor) -> Tensor:
        return -self.critic(self.generator(torch.randn(len(real), 3, dtype=real.dtype))).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (real,) = data_batch
        for _ in range(self.nb_critic_steps):
            loss = self.critic_loss(real)
            self.manual_step(1, loss=loss)
        self.manual_step(0, loss=self.generator_loss(real))
        return {"prog": {"critic_loss": loss}}

    def configure_optimizers(self) -> Any:
        return [Adam(self.generator.parameters(), 0.01, betas=(0.0, 0.9)), Adam(self.critic.parameters(), 0.02)]

    @staticmethod
    def by_hand(replicas: list[Any], rows: list[Any], optimizers: list[Any], ranks: list[Any], step: int) -> None:
        for _ in range(Wgan.nb_critic_steps):
            for _, critic_step in optimizers:
                critic_step.zero_grad()
            turn(replicas, ranks, step, lambda model, n: model.critic_loss(rows[n]).backward())
            average(replicas)
            for _, critic_step in optimizers:
                critic_step.step()
        for generator_step, _ in optimizers:
            generator_step.zero_grad()
        turn(replicas, ranks, step, lambda model, n: model.generator_loss(rows[n]).backward())
        average(replicas)
        for generator_step, _ in optimizers:
            generator_step.step()


class PlainWgan(Wgan):
    """The same as papers' code has it."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (real,) = data_batch
        generator_step, critic_step = self.trainer.optimizers
        for _ in range(self.nb_critic_steps):
            critic_step.zero_grad()
            self.critic_loss(real).backward()
            critic_step.step()
        generator_step.zero_grad()
        self.generator_loss(real).backward()
        generator_step.step()


class Sam(Points):
    """Sharpness-aware minimization: Foret et al. (2021). A step follows the gradient at a point that is worse."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(2, 1, 3)

    def loss(self, x: Tensor) -> Tensor:
        return (self.net(nn.functional.dropout(x, 0.2)).squeeze(1) - x.prod(1)).pow(2).mean()

    @torch.no_grad()
    def climb(self) -> list[Tensor]:
        norm = torch.stack([p.grad.norm() for p in self.net.parameters()]).norm()  # type: ignore[union-attr]
        before = [p.clone() for p in self.net.parameters()]
        for p in self.net.parameters():
            p.add_(p.grad / norm * 0.05)  # type: ignore[operator]
        return before

    @torch.no_grad()
    def go_back(self, before: list[Tensor]) -> None:
        for p, value in zip(self.net.parameters(), before, strict=True):
            p.copy_(value)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (x,) = data_batch
        loss = self.loss(x)
        self.manual_backward(loss)
        before = self.climb()
        self.zero_grad()
        self.manual_backward(self.loss(x))
        self.go_back(before)
        self.manual_step()
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), 0.05, momentum=0.9)

    @staticmethod
    def by_hand(replicas: list[Any], rows: list[Any], optimizers: list[Any], ranks: list[Any], step: int) -> None:
        def climb_and_return(model: Any, n: int) -> None:
            model.zero_grad()
            model.loss(rows[n]).backward()
            before = model.climb()
            model.zero_grad()
            model.loss(rows[n]).backward()
            model.go_back(before)

        turn(replicas, ranks, step, climb_and_return)
        average(replicas)
        for (optimizer,) in optimizers:
            optimizer.step()


class ClimbingSgd(SGD):
    """The same as an optimizer whose ``step`` takes a closure."""

    def step(self, closure: Any = None) -> Any:
        parameters = self.param_groups[0]["params"]
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            before = [p.clone() for p in parameters]
            for p in parameters:
                p.add_(p.grad / norm * 0.05)
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
        return super().step()


class ClosureSam(Sam):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (x,) = data_batch
        optimizer = self.trainer.optimizers[0]

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(x)
            loss.backward()
            return loss

        closure()
        optimizer.step(closure)

    def configure_optimizers(self) -> Any:
        return ClimbingSgd(self.parameters(), 0.05, momentum=0.9)


class ActorCritic(Points):
    """Two networks of one episode; the critic steps in every batch, the actor on the sum of two."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = network(2, 3, 4), network(2, 1, 5)

    def play(self, state: Tensor) -> tuple[Tensor, Tensor]:
        chances = torch.distributions.Categorical(logits=self.actor(state))
        action = chances.sample()
        reward = -(action - state[:, 0]).pow(2)
        gain = reward - self.critic(state).squeeze(1)
        return gain.pow(2).mean(), -(chances.log_prob(action) * gain.detach()).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        value_loss, policy_loss = self.play(data_batch[0])
        self.manual_step(1, loss=value_loss)
        self.manual_backward(policy_loss / 2)
        if batch_nb % 2:
            self.manual_step(0)
        return {"loss": value_loss, "loss_count": len(data_batch[0])}

    def configure_optimizers(self) -> Any:
        return [SGD(self.actor.parameters(), 0.1), Adam(self.critic.parameters(), 0.01)]

    @staticmethod
    def by_hand(replicas: list[Any], rows: list[Any], optimizers: list[Any], ranks: list[Any], step: int) -> None:
        losses: dict[int, Any] = {}
        turn(replicas, ranks, step, lambda model, n: losses.update({n: model.play(rows[n])}))
        for n, (_, critic_step) in enumerate(optimizers):
            critic_step.zero_grad()
            losses[n][0].backward(inputs=list(replicas[n].critic.parameters()))
        average([model.critic for model in replicas])
        for n, (_, critic_step) in enumerate(optimizers):
            critic_step.step()
            (losses[n][1] / 2).backward()
        if step % 2:
            average([model.actor for model in replicas])
            for actor_step, _ in optimizers:
                actor_step.step()
                actor_step.zero_grad()


def turn(replicas: list[Any], ranks: list[Any], step: int, run: Any) -> None:
    """``run(model, n)`` of each replica, with the random numbers of its process."""
    for n, model in enumerate(replicas):
        if ranks[n] is None:
            run(model, n)
            continue
        torch.set_rng_state(ranks[n])
        run(model, n)
        ranks[n] = torch.get_rng_state()


def average(replicas: list[Any]) -> None:
    for each in zip(*(model.parameters() for model in replicas), strict=True) if len(replicas) > 1 else ():
        if each[0].grad is not None:
            mean = torch.stack([p.grad for p in each]).mean(0)
            for p in each:
                p.grad = mean.clone()


def train_by_hand(kind: Any, nb_epochs: int, nb: int = 1) -> Any:
    """``nb`` replicas of plain torch; returns the first one."""
    kind = Sam if kind is ClosureSam else kind
    replicas = [kind() for _ in range(nb)]
    configured = [model.configure_optimizers() for model in replicas]
    optimizers = [found if isinstance(found, list) else [found] for found in configured]
    step = 0
    for _ in range(nb_epochs):
        batches = [x for (x,) in replicas[0].tng_dataloader]
        for start in range(0, len(batches) - nb + 1, nb):
            ranks: list[Any] = [None] * nb
            if nb == 1:
                seed_batch(step)
            for n in range(nb) if nb > 1 else ():
                seed_batch(step, n)
                ranks[n] = torch.get_rng_state()
            kind.by_hand(replicas, batches[start : start + nb], optimizers, ranks, step)
            step += 1
    return copy.deepcopy(replicas[0])
