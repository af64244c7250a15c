"""Consistency training and distillation as one would write them directly in JAX: all formulas inlined."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

RHO, T_MIN, T_MAX = 7.0, 0.002, 80.0
LOW, HIGH = T_MIN ** (1 / RHO), T_MAX ** (1 / RHO)


def grid(i, n):
    return (LOW + i / (n - 1) * (HIGH - LOW)) ** RHO


def apply(net, x, t, sigma, t_min):
    """The network under the scalings of the consistency function (t_min = 0: of the denoiser)."""
    c_noise = 0.25 * jnp.log(t)
    t = t.reshape((-1,) + (1,) * (x.ndim - 1))
    root = jnp.sqrt(t**2 + sigma**2)
    return sigma**2 / ((t - t_min) ** 2 + sigma**2) * x + sigma * (t - t_min) / root * net(x / root, c_noise)


class Training:
    """The state and ``step(x0, n, mu, ema)``; distillation where a teacher is given."""

    def __init__(self, net, teacher, keep_target, sigma, optimizer, lr, seed):
        params, static = eqx.partition(jax.tree.map(jnp.array, net), eqx.is_inexact_array)
        rule = {"adam": optax.adam, "radam": optax.radam}[optimizer](lr)
        copies = {name: jax.tree.map(jnp.copy, params) for name in ("ema", *(("target",) if keep_target else ()))}
        self.state = {"online": params, **copies, "opt": rule.init(params), "key": jax.random.key(seed)}

        def loss_of(online, target, x0, z, u, n):
            column = (-1,) + (1,) * (x0.ndim - 1)
            i = jnp.minimum(jnp.floor(u * (n - 1)), n - 2)
            r, t = grid(i, n), grid(i + 1, n)
            rc, tc = r.reshape(column), t.reshape(column)
            x_t = x0 + tc * z
            if teacher is None:
                x_r = x0 + rc * z
            else:
                first = (x_t - apply(teacher, x_t, t, sigma, 0.0)) / tc
                x_e = x_t + (rc - tc) * first
                second = (x_e - apply(teacher, x_e, r, sigma, 0.0)) / rc
                x_r = x_t + (rc - tc) * (first + second) / 2
            goal = jax.lax.stop_gradient(apply(eqx.combine(target, static), x_r, r, sigma, T_MIN))
            return jnp.mean((apply(eqx.combine(online, static), x_t, t, sigma, T_MIN) - goal) ** 2)

        def update(state, x0, z, u, n, mu, ema):
            online, target = state["online"], jax.lax.stop_gradient(state.get("target", state["online"]))
            loss, grads = jax.value_and_grad(loss_of)(online, target, x0, z, u, n)
            updates, opt = rule.update(grads, state["opt"], online)
            online = optax.apply_updates(online, updates)
            state = {**state, "online": online, "opt": opt}
            for name, decay in (("ema", ema), ("target", mu)):
                if name in state:
                    state[name] = jax.tree.map(lambda a, w, d=decay: d * a + (1 - d) * w, state[name], online)
            return state, loss

        @partial(jax.jit, donate_argnums=0)
        def draw_and_update(state, x0, n, mu, ema):
            key, key_z, key_u = jax.random.split(state["key"], 3)
            z, u = jax.random.normal(key_z, x0.shape), jax.random.uniform(key_u, x0.shape[:1])
            return update({**state, "key": key}, x0, z, u, n, mu, ema)

        self.update, self.draw_and_update = jax.jit(update, donate_argnums=0), draw_and_update

    def step(self, x0, n, mu, ema, draws=None):
        if draws is None:
            self.state, loss = self.draw_and_update(self.state, x0, n, mu, ema)
        else:
            self.state, loss = self.update(self.state, x0, *draws, n, mu, ema)
        return loss

    def averaged(self):
        leaves = jax.tree.leaves_with_path(self.state["ema"])
        return {jax.tree_util.keystr(path, simple=True, separator="."): jax.device_get(leaf) for path, leaf in leaves}
