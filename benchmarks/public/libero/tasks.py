# SPDX-License-Identifier: Apache-2.0
"""LIBERO's four suites of ten tasks, by the package's names and in its order, and the official protocol's limits."""

from __future__ import annotations

import re

import numpy as np

PLACES = (
    "between_the_plate_and_the_ramekin",
    "next_to_the_ramekin",
    "from_table_center",
    "on_the_cookie_box",
    "in_the_top_drawer_of_the_wooden_cabinet",
    "on_the_ramekin",
    "next_to_the_cookie_box",
    "on_the_stove",
    "next_to_the_plate",
    "on_the_wooden_cabinet",
)
THINGS = (
    "alphabet_soup",
    "cream_cheese",
    "salad_dressing",
    "bbq_sauce",
    "ketchup",
    "tomato_sauce",
    "butter",
    "milk",
    "chocolate_pudding",
    "orange_juice",
)
SUITES: dict[str, tuple[str, ...]] = {
    "libero_spatial": tuple(f"pick_up_the_black_bowl_{place}_and_place_it_on_the_plate" for place in PLACES),
    "libero_object": tuple(f"pick_up_the_{thing}_and_place_it_in_the_basket" for thing in THINGS),
    "libero_goal": (
        "open_the_middle_drawer_of_the_cabinet",
        "put_the_bowl_on_the_stove",
        "put_the_wine_bottle_on_top_of_the_cabinet",
        "open_the_top_drawer_and_put_the_bowl_inside",
        "put_the_bowl_on_top_of_the_cabinet",
        "push_the_plate_to_the_front_of_the_stove",
        "put_the_cream_cheese_in_the_bowl",
        "turn_on_the_stove",
        "put_the_bowl_on_the_plate",
        "put_the_wine_bottle_on_the_rack",
    ),
    "libero_10": (
        "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket",
        "LIVING_ROOM_SCENE2_put_both_the_cream_cheese_box_and_the_butter_in_the_basket",
        "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it",
        "KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it",
        "LIVING_ROOM_SCENE5_put_the_white_mug_on_the_left_plate_and_put_the_yellow_and_white_mug_on_the_right_plate",
        "STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
        "LIVING_ROOM_SCENE6_put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate",
        "LIVING_ROOM_SCENE1_put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket",
        "KITCHEN_SCENE8_put_both_moka_pots_on_the_stove",
        "KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it",
    ),
}
STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
OFFICIAL_STATES = 50  # of each task
SUITE_OF = {task: suite for suite, tasks in SUITES.items() for task in tasks}
DEMONSTRATED = SUITES["libero_spatial"] + SUITES["libero_object"]  # what the scripted expert can do
FEW = tuple(tasks[place] for tasks in SUITES.values() for place in (0, 8))
NAMES = ("black bowl", "plate", "basket", *(thing.replace("_", " ") for thing in THINGS))
APART = 0.005  # [m] in our own states some thing is at least this far from where it is in any official one
SHIFT = 0.02  # [m] of things in our own start states from where an official one has them, along x and y


def objects(task: str) -> tuple[str, str]:
    """What a demonstrated task moves and where to, as phrases of `NAMES`."""
    if SUITE_OF[task] == "libero_spatial":
        return "black bowl", "plate"
    return next(thing for thing in THINGS if f"_{thing}_" in task).replace("_", " "), "basket"


def instruction(task: str) -> str:
    """The sentence of a task: its name without the scene, as the package itself reads it."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ")


def shifts(random: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) how far things are moved from where an official state has them [m]."""
    return random.uniform(-SHIFT, SHIFT, (count, 2))


def nearest(official: np.ndarray, places: np.ndarray) -> float:
    """How far some thing is, at least, from where it is in the official state that resembles these places most [m].

    Args:
        official: (states, things, 2) x and y.
        places: (things, 2) the same now.
    """
    return float(np.linalg.norm(official - places, axis=-1).max(-1).min())
