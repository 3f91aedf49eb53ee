"""Reinforcement learning: the loader plays with the policy as it is now (REINFORCE with a baseline)."""

import torch
from torch import nn
from torch.distributions import Categorical
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

LENGTH, MOST_STEPS, GAMMA = 8, 30, 0.95


class Corridor:
    """A walk from the left end to the right one, on ice."""

    def reset(self):
        self.place, self.nb_steps = 0, 0
        return self.place

    def step(self, action):
        slips = torch.rand(()) < 0.2
        self.place = max(0, self.place + (1 if action == 1 and not slips else -1))
        self.nb_steps += 1
        arrived = self.place == LENGTH - 1
        return self.place, float(arrived), arrived or self.nb_steps == MOST_STEPS


class Episodes(IterableDataset):
    """Plays ``nb`` episodes: (places, actions, returns), concatenated."""

    def __init__(self, policy, nb):
        self.policy, self.nb = policy, nb

    def __iter__(self):
        for _ in range(self.nb):
            environment, done = Corridor(), False
            place = environment.reset()
            places, actions, rewards = [], [], []
            while not done:
                with torch.no_grad():
                    logits = self.policy(torch.tensor(place))
                action = int(Categorical(logits=logits).sample())
                places.append(place)
                actions.append(action)
                place, reward, done = environment.step(action)
                rewards.append(reward)
            returns: list[float] = []
            for reward in reversed(rewards):
                returns.append(reward + GAMMA * (returns[-1] if returns else 0.0))
            yield torch.tensor(places), torch.tensor(actions), torch.tensor(returns[::-1])


class Walker(LightningModule):
    def __init__(self):
        super().__init__()
        self.policy = nn.Embedding(LENGTH, 2)
        self.value = nn.Embedding(LENGTH, 1)

    def training_step(self, data_batch, batch_nb):
        places, actions, returns = data_batch
        value = self.value(places).squeeze(1)
        chosen = Categorical(logits=self.policy(places)).log_prob(actions)
        actor = -(chosen * (returns - value.detach())).mean()
        critic = nn.functional.mse_loss(value, returns)
        return {"loss": actor + critic, "prog": {"episode": float(len(places))}}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

    @property
    def tng_dataloader(self):
        # no workers: played when it is asked for, with the weights of now
        return DataLoader(Episodes(self.policy, 50), batch_size=None)


if __name__ == "__main__":
    seed_everything(0)
    model = Walker()
    trainer = Trainer(max_nb_epochs=6, print_weights_summary=False, default_save_path="reinforcement")
    trainer.fit(model)
    lengths = [len(places) for places, _, _ in Episodes(model.policy, 100)]
    mean = sum(lengths) / len(lengths)
    print(f"steps to the end: {mean:.1f} (7 without a slip, {MOST_STEPS} if it is never found)")
