"""The preset dictionary of the short container (petl_bench.packing.container)."""

from __future__ import annotations

from functools import cache


@cache
def dictionary() -> bytes:
    """Return the preset dictionary: usual texts, in which those at the end cost least.

    It is part of the format. Nothing here may ever change, nor depend on anything outside of this function;
    another dictionary is another version of the container.
    """
    tasks = """cifar caltech101 dtd oxford_flowers102 oxford_iiit_pet svhn sun397 patch_camelyon eurosat
        resisc45 diabetic_retinopathy clevr_count clevr_dist dmlab kitti dsprites_loc dsprites_ori
        smallnorb_azi smallnorb_ele"""
    names = [f"vtab_{name}" for name in tasks.split()]
    names += [f"fgvc_{name}" for name in ("cars", "pets", "flowers", "food", "aircraft")]
    names += ["tree", "folder", "digits", "surfaces", "shapes_count", "sprites_loc", "sprites_ori"]
    lines = [
        "&shots=&split_seed=&resize=stretch&resize=crop&names=&plugins=&p=b&p=i&image_size=224&weights=file"
    ]
    lines += ["&float_bits=2&float_bits=4&float_bits=8&statistics_of=adapter&statistics_of=role&statistics=3"]
    lines += ["&a.share=0&a.dropout=0.0&a.allocation='rising'&a.norms=True&a.bias=True&head=bits8&head=bits3"]
    lines += ["&quantizer=lloyd_max&quantizer=minmax&normalization=imagenet&normalization=half&bits=3&bits=8"]
    lines += [f"&task={name}&normalization=none&backbone=" for name in names]
    heads = ["=10xD@2", "=10xD@4", "=10xD@1", "=10xD,bias=10"]
    methods = {
        "ssf": (0, ["scales=2944@1,shifts=2944@1|weight"]),
        "krona": (0, ["0-N:qkv.left=16x8@1,qkv.right=12x8@1,proj.left=8x8@1,proj.right=8x8@1,"]),
        "fact_tk": (1, ["widthD.down=HxD@1,widthD.up=DxH@1,widthD.c=16xH@1,widthD.p=Hx48@1|weight"]),
        "adapter_plus": (1, ["0-N:mlp.down=HxD@1,mlp.up=DxH@1;biases=272@1,scales=256@1|weight"]),
        "houlsby": (
            1,
            ["0-N:attention.down=HxD@1,attention.up=DxH@1,mlp.down=HxD@1,mlp.up=DxH@1;biases=544@1|weight"],
        ),
        "bitfit": (0, ["biases=2944@1|weight"]),
        "linear": (0, ["|weight"]),
        "lora": (1, ["0-N:q.down=HxD@1,q.up=DxH@1,v.down=HxD@1,v.up=DxH@1|weight"]),
        "adaptformer": (1, ["0-N:down=HxD@1,up=DxH@1|weight"]),
    }
    for last, width in ((11, 768), (3, 64)):
        for _, layouts in methods.values():
            for layout in layouts:
                for hidden in (32, 2, 4, 8, 1, 16) if "H" in layout else (0,):
                    text = layout.replace("N", str(last)).replace("H", str(hidden)).replace("D", str(width))
                    lines.append(f"&layout={text}")
        lines += [head.replace("D", str(width)) + "&packing=" for head in heads]
    for name, (units, _) in methods.items():
        about = "&bits=1&quantizer=l1_median" if units else "0&bits=32&quantizer=none"
        for scale in ("0.01", "0.1", "100.0", "10.0", "1.0"):
            for head in ("bits4", "bits2", "binary", "linear"):
                lines.append(f"&scale={scale}&head={head}&seed=0&task=") if name == "lora" else None
        lines.append(f"adapter={name}&hidden={about}&scale=")
    lines.append("&normalization=none&backbone=vit_b16_in21k&backbone_sha256=")
    lines.append("&normalization=none&backbone=pocket&backbone_sha256=ki_aWyEyysH-SsIkOthgqg&layout=")
    return "".join(lines).encode()
